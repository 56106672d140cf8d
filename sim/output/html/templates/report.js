// Draws the charts and tables whose data stand in the page.
const read = (name) => JSON.parse(document.getElementById(name).textContent);
const CONFIG = { responsive: true, displaylogo: false, scrollZoom: false,
  modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]] };

// One formatter for all cells: to make one per cell would take seconds.
const { format: figures } = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 17 });

function drawChart(element) {
  const chart = read(`${element.id}-data`);
  Plotly.newPlot(element, chart.data, chart.layout, CONFIG);
  const select = document.getElementById(`${element.id}-view`);
  select?.addEventListener("change", () => {
    const number = Number(select.value);
    const visible = chart.data.map((trace) => trace.meta === undefined || trace.meta === number);
    const layout = { "xaxis.autorange": true, ...chart.views[number].layout };
    if (layout.height) element.style.height = `${layout.height}px`;
    Plotly.update(element, { visible }, layout);
  });
}

// The facts of one row, and its time as a bar of its parts.
function openPanel(place, table, row) {
  const { what, unit, parts } = table.panel;
  const title = document.createElement("h3");
  const close = document.createElement("button");
  title.textContent = `${what} ${row[0]}`;
  close.textContent = "close";
  close.addEventListener("click", () => { place.hidden = true; });
  title.append(close);
  const facts = document.createElement("dl");
  facts.className = "facts";
  table.columns.forEach((column, number) => {
    if (!number || column.hidden || row[number] === null) return; // the title has the first
    const [fact, name, value] = ["div", "dt", "dd"].map((tag) => document.createElement(tag));
    name.textContent = column.title;
    value.textContent = typeof row[number] === "number" ? figures(row[number]) : row[number];
    fact.append(name, value);
    facts.append(fact);
  });
  const bar = document.createElement("div");
  place.replaceChildren(title, facts, bar);
  place.hidden = false;
  const total = parts.reduce((sum, part) => sum + row[part.column], 0);
  const traces = parts.filter((part) => row[part.column] > 0).map((part) => ({
    type: "bar", orientation: "h", y: [""], x: [row[part.column]], name: part.name,
    marker: { color: part.colour }, customdata: [row[part.column] / total],
    hovertemplate: `${part.name}: %{x:.4~g} ${unit} (%{customdata:.1%})<extra></extra>`,
  }));
  Plotly.newPlot(bar, traces, {
    ...table.panel.layout,
    xaxis: { ...table.panel.layout.xaxis, range: [0, total * 1.02] },
  }, CONFIG);
}

function drawTable(DataTable, element) {
  const table = read(`${element.id}-data`);
  const escaped = DataTable.render.text();
  const cell = (value) => typeof value === "number" ? figures(value) : escaped.display(value);
  const grey = new Set(table.grey);
  const shown = new DataTable(element, {
    data: table.rows,
    // Cells are texts: no tag in them is obeyed.
    columns: table.columns.map((column, number) => ({
      visible: !column.hidden,
      searchable: !column.hidden,
      render: { display: cell, _: (value) => value ?? "" },
      className: table.rows.some((row) => typeof row[number] === "string") ? "" : "number",
    })),
    order: table.order ? [table.order] : [],
    deferRender: true,
    autoWidth: false, // else every cell of the table is written out once to measure it
    pageLength: 10,
    lengthMenu: [10, 25, 100],
    layout: { topStart: "pageLength", topEnd: "search", top2Start: "searchBuilder" },
    language: { searchBuilder: { title: "Conditions", add: "add a condition" } },
    createdRow: (tr, row, number) => { if (grey.has(number)) tr.classList.add("grey"); },
  });
  if (!table.panel) return;
  element.classList.add("pickable");
  const place = document.getElementById(`${element.id}-panel`);
  element.tBodies[0].addEventListener("click", (event) => {
    const tr = event.target.closest("tr");
    const row = tr && shown.row(tr).data();
    if (!row) return;
    element.querySelector("tr.picked")?.classList.remove("picked");
    tr.classList.add("picked");
    openPanel(place, table, row);
    place.scrollIntoView({ block: "nearest" });
  });
}

// A chart is drawn when it comes near the window, so that a long page opens at once. The tables
// follow what is seen first.
const note = (name) => { document.documentElement.dataset[name] = Math.round(performance.now()); };
const charts = [...document.querySelectorAll(".chart")];
const open = new Promise((resolve) => {
  const watcher = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting || target.matches(".js-plotly-plot")) continue;
      watcher.unobserve(target);
      drawChart(target);
    }
    resolve();
  }, { rootMargin: "200px" });
  charts.forEach((element) => watcher.observe(element));
  if (!charts.length) resolve();
});
window.addEventListener("beforeprint", () => {
  charts.filter((element) => !element.matches(".js-plotly-plot")).forEach(drawChart);
});
await open;
note("openAfter");
await new Promise((resolve) => { setTimeout(resolve); });
const source = new Blob([read("tables-module")], { type: "text/javascript" });
const { default: DataTable } = await import(URL.createObjectURL(source));
document.querySelectorAll("table[data-rows]").forEach((table) => drawTable(DataTable, table));
note("readyAfter");
