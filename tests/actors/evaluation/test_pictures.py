"""Picture grids and panels."""

from pathlib import Path

import numpy as np
from PIL import Image

from actors.evaluation.pictures import (
    GAP,
    MIN_TILE,
    MOST_NAME_WIDTH,
    NAME_HEIGHT,
    TITLE_HEIGHT,
    HeldOutPictures,
    free_running_panel,
    grid,
    held_out_panels,
    joined,
    save_panels,
)


def flat(*shades: int, side: int = MIN_TILE) -> np.ndarray:
    """Square pictures of one shade each."""
    return np.stack([np.full((side, side, 3), shade, np.uint8) for shade in shades])


def middles(picture: np.ndarray, side: int) -> list[list[int]]:
    """The shade in the middle of each tile."""
    return picture[side // 2 :: side, side // 2 :: side, 0].tolist()


def test_pictures_fill_rows_from_the_left_and_the_rest_is_black() -> None:
    picture = grid(flat(10, 20, 30, 40, 50), columns=3)
    assert picture.shape == (2 * MIN_TILE, 3 * MIN_TILE, 3)
    assert picture.dtype == np.uint8
    assert middles(picture, MIN_TILE) == [[10, 20, 30], [40, 50, 0]]


def test_a_full_row_gets_no_empty_one_below() -> None:
    assert middles(grid(flat(10, 20), columns=2), MIN_TILE) == [[10, 20]]


def test_small_pictures_are_enlarged_by_a_whole_factor_and_large_ones_are_not() -> None:
    checks = np.indices((20, 20)).sum(0)[None, :, :, None].repeat(3, axis=3).astype(np.uint8)
    enlarged = grid(checks, columns=1)
    assert enlarged.shape == (80, 80, 3)  # 20 fits four times into 96
    np.testing.assert_array_equal(enlarged[::4, 1::4], checks[0])
    large = flat(7, side=64)
    np.testing.assert_array_equal(grid(large, columns=1), large[0])


def test_panels_stand_side_by_side_below_their_titles(tmp_path: Path) -> None:
    path = tmp_path / "samples" / "before_after.png"
    left, right = np.full((30, 80, 3), 10, np.uint8), np.full((20, 70, 3), 200, np.uint8)
    save_panels(path, [("before", left), ("after", right)])
    canvas = np.asarray(Image.open(path))
    assert canvas.shape == (TITLE_HEIGHT + 30, 80 + GAP + 70, 3)
    np.testing.assert_array_equal(canvas[TITLE_HEIGHT:, :80], left)
    np.testing.assert_array_equal(canvas[TITLE_HEIGHT : TITLE_HEIGHT + 20, 80 + GAP :], right)
    assert (canvas[:, 80 : 80 + GAP] == 255).all()
    for start in (0, 80 + GAP):
        assert (canvas[:TITLE_HEIGHT, start : start + 40] < 128).any(), "a title is written above"
    assert [entry.name for entry in path.parent.iterdir()] == ["before_after.png"]


def test_a_panel_is_as_wide_as_its_title_at_least(tmp_path: Path) -> None:
    path = tmp_path / "grid.png"
    save_panels(path, [("a title that is a good deal wider than this", flat(10)[0]), ("b", flat(200)[0])])
    canvas = np.asarray(Image.open(path))
    second = canvas.shape[1] - MIN_TILE
    assert second > 2 * MIN_TILE
    np.testing.assert_array_equal(canvas[TITLE_HEIGHT:, second:], flat(200)[0])
    assert (canvas[TITLE_HEIGHT:, MIN_TILE:second] == 255).all()


def held_out(*shades: int) -> HeldOutPictures:
    """Images of these shades; the reconstruction is one shade lighter, the two samples two and three."""
    samples = [flat(shade + 2, shade + 3) for shade in shades]
    return HeldOutPictures(flat(*shades), flat(*(shade + 1 for shade in shades)), np.stack(samples))


def test_a_held_out_image_is_a_row_of_every_panel() -> None:
    panels = dict(held_out_panels(joined([held_out(10, 20), held_out(30)])))
    assert {title: middles(picture, MIN_TILE) for title, picture in panels.items()} == {
        "source": [[10], [20], [30]],
        "reconstruction": [[11], [21], [31]],
        "teacher-forced samples": [[12, 13], [22, 23], [32, 33]],
    }


def test_free_running_pictures_fill_the_rows_of_their_panel() -> None:
    title, picture = free_running_panel(flat(*range(7)), rows=3)
    assert title == "free-running samples"
    assert middles(picture, MIN_TILE) == [[0, 1], [2, 3], [4, 5]]
    _, picture = free_running_panel(flat(*range(20)), rows=2)
    assert middles(picture, MIN_TILE) == [list(range(8)), list(range(8, 16))]
    assert middles(free_running_panel(flat(5), rows=2)[1], MIN_TILE) == [[5]]


def test_names_of_columns_stand_once_above_them() -> None:
    plain = grid(flat(10, 20, 30, 40, 50), columns=2)
    named = grid(flat(10, 20, 30, 40, 50), 2, ["cat", "dog", "cat", "dog", "cat"])
    assert named.shape == (NAME_HEIGHT + 3 * MIN_TILE, 2 * MIN_TILE, 3)
    np.testing.assert_array_equal(named[NAME_HEIGHT:], plain)
    strips = np.split(named[:NAME_HEIGHT], 2, axis=1)
    assert all(strip.min() < 100 for strip in strips)
    assert (strips[0] != strips[1]).any()


def test_names_of_rows_stand_once_beside_them() -> None:
    plain = grid(flat(10, 20, 30, 40), columns=2)
    named = grid(flat(10, 20, 30, 40), 2, ["cat", "cat", "dog", "dog"])
    width = named.shape[1] - 2 * MIN_TILE
    np.testing.assert_array_equal(named[:, width:], plain)
    strips = np.split(named[:, :width], 2)
    assert all(strip.min() < 100 for strip in strips)
    assert (strips[0] != strips[1]).any()
    assert grid(flat(10, 20), 2, ["cat" * 200] * 2).shape[1] <= MOST_NAME_WIDTH + GAP + 2 * MIN_TILE


def test_names_that_differ_within_a_column_stand_above_every_picture() -> None:
    named = grid(flat(10, 20, 30, 40), 2, ["a", "b", "c", "d"])
    height = NAME_HEIGHT + MIN_TILE
    assert named.shape == (2 * height, 2 * MIN_TILE, 3)
    np.testing.assert_array_equal(named[NAME_HEIGHT:height, :MIN_TILE], flat(10)[0])
    np.testing.assert_array_equal(named[height + NAME_HEIGHT :, MIN_TILE:], flat(40)[0])
    assert (named[:NAME_HEIGHT] != named[height : height + NAME_HEIGHT]).any()


def test_a_long_name_stays_above_its_picture_and_any_letter_can_be_written() -> None:
    names = ["a very long name of a class", "", "чайник 🫖", ""]
    strip = grid(flat(10, 20, 30, 40), 4, names)[:NAME_HEIGHT]
    assert (strip[:, MIN_TILE : 2 * MIN_TILE] == 255).all()
    assert (strip[:, 3 * MIN_TILE :] == 255).all()
    assert strip[:, 2 * MIN_TILE : 3 * MIN_TILE].min() < 100
