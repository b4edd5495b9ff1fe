// The newest page in this one's place, without a jump; what was open stays open. Where the driver has gone, so much is said.
const gone = document.getElementById("gone");
const opened = () => [...document.querySelectorAll("details[open] > summary")].map((each) => each.textContent);

async function refresh() {
  if (document.querySelector(".chart svg:hover")) return;
  try {
    const answer = await fetch(location.href, { cache: "no-store" });
    if (!answer.ok) throw new Error(await answer.text());
    const newest = new DOMParser().parseFromString(await answer.text(), "text/html");
    const open = opened();
    for (const part of ["header", "main", "footer"]) document.querySelector(part).replaceWith(newest.querySelector(part));
    for (const each of document.querySelectorAll("summary")) each.parentElement.open ||= open.includes(each.textContent);
    document.title = newest.title;
    showValuesUnderThePointer();
    gone.hidden = true;
  } catch {
    gone.hidden = false;
  }
}
setInterval(refresh, 1000 * document.body.dataset.refresh);
