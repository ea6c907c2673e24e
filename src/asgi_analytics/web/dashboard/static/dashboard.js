// Draws what the page has as tables, and keeps it fresh. Each panel has a module of its own.
import { drawCharts } from "./panels/chart.js";
import { followControls } from "./panels/controls.js";
import { growFunnel } from "./panels/funnel.js";
import { sortTables } from "./panels/sort.js";
import { stayLive } from "./panels/live.js";
import { offerTheme } from "./panels/theme.js";

function draw() {
  drawCharts();
  growFunnel();
  sortTables();
}

// Where the menu is wider than the screen, it begins with the page that is looked at.
document.querySelector(".top nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
followControls();
offerTheme(drawCharts);
stayLive(draw);
draw();
