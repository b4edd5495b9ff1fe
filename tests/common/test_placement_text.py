from common.placement_text import needs_text


def test_resources_labels_and_what_is_free_are_named() -> None:
    assert needs_text(2, 0.5, {}, {"CPU": 4.0}) == ("2 CPU and 0.5 GPU, and the cluster has 4 CPU and 0 GPU free")
    assert needs_text(1, 1, {"vapi-role": "learner", "zone": "a"}, {"CPU": 8.0, "GPU": 0.25}) == (
        "1 CPU and 1 GPU on a node with the label vapi-role = learner, zone = a, and the cluster has 8 CPU and "
        "0.25 GPU free"
    )
