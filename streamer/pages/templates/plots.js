"use strict";
const COLOURS = new Set(["color", "bgcolor", "fillcolor", "bordercolor", "gridcolor", "zerolinecolor", "activecolor"]);
const boxes = [...document.querySelectorAll(".plot")];
const plots = boxes.map((box) => ({box, view: 0, spec: JSON.parse(box.firstElementChild.textContent)}));
function coloured(value, key, css) {
  if (typeof value === "string") return COLOURS.has(key) && value.startsWith("--") ? css.getPropertyValue(value).trim() : value;
  if (Array.isArray(value)) return value.map((one) => coloured(one, key, css));
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, coloured(one, name, css)]));
}
function draw(plot) {
  const css = getComputedStyle(document.documentElement), {spec, box} = plot;
  const narrow = box.clientWidth < 480, touch = matchMedia("(pointer: coarse)").matches;
  const line = {gridcolor: "--rule", zerolinecolor: "--rule", automargin: true};
  const data = spec.views[plot.view].data.map((one) => (spec.x && !("x" in one) ? {...one, x: spec.x} : one));
  const layout = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest", dragmode: touch ? false : "zoom",
    font: {family: "system-ui, sans-serif", size: 12, color: "--soft"}, margin: {l: 8, r: 12, t: 12, b: 8},
    hoverlabel: {bgcolor: "--card", bordercolor: "--rule", font: {color: "--ink", size: 13}},
    modebar: {bgcolor: "rgba(0,0,0,0)", color: "--out", activecolor: "--ink"},
    legend: {orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: {color: "--ink"}}, ...spec.layout,
  };
  for (const name of Object.keys(layout)) {
    if (/^[xy]axis/.test(name)) layout[name] = {...line, ...layout[name], ...(narrow ? {nticks: 5} : {})};
  }
  const look = {responsive: true, displaylogo: false, displayModeBar: matchMedia("(hover: hover)").matches ? "hover" : false,
    modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"]};
  Plotly.react(box, coloured(data, "", css), coloured(layout, "", css), look);
}
for (const plot of plots) {
  plot.box.replaceChildren();
  if (plot.spec.views.length > 1) {
    const choice = document.createElement("select");
    for (const {label} of plot.spec.views) choice.add(new Option(label));
    choice.setAttribute("aria-label", "coloured by");
    choice.addEventListener("change", () => { plot.view = choice.selectedIndex; draw(plot); });
    plot.box.before(choice);
  }
  draw(plot);
}
for (const query of ["(prefers-color-scheme: dark)", "print"]) {
  matchMedia(query).addEventListener("change", () => plots.forEach(draw));
}
