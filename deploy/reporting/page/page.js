// The values under the pointer. Without it the legends show those of the last step.
function showValuesUnderThePointer() {
  for (const chart of document.querySelectorAll("[data-chart]")) {
    const { xs, values, left, right } = JSON.parse(chart.dataset.chart);
    const svg = chart.querySelector("svg");
    const cursor = svg.querySelector(".cursor");
    const step = chart.querySelector(".step");
    const outputs = [...chart.querySelectorAll(".value")];
    const atRest = [step, ...outputs].map((each) => [each, each.textContent]);
    const span = xs.at(-1) - xs[0] || 1;
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const across = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
      const aim = xs[0] + ((across - left) / (right - left)) * span;
      let index = 0;
      for (let each = 1; each < xs.length; each++) {
        if (Math.abs(xs[each] - aim) < Math.abs(xs[index] - aim)) index = each;
      }
      cursor.setAttribute("transform", `translate(${left + ((xs[index] - xs[0]) / span) * (right - left)} 0)`);
      cursor.setAttribute("visibility", "visible");
      step.textContent = xs[index];
      outputs.forEach((output, series) => {
        const value = values[series][index];
        output.textContent = value === null ? "–" : String(Number(value.toPrecision(4))).replace("-", "−");
      });
    });
    svg.addEventListener("pointerleave", () => {
      cursor.setAttribute("visibility", "hidden");
      for (const [element, text] of atRest) element.textContent = text;
    });
  }
}
showValuesUnderThePointer();
