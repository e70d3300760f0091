import "./app.css";
import "./ui/theme";
import { render } from "preact";
import { Frame } from "./frame";
import { askForOverview } from "./pages/overview";
import { startRouter } from "./router";
import { askWhoIsThere, wasRefused } from "./state/session";

startRouter();
void askWhoIsThere();
if (location.pathname === "/" && !wasRefused()) askForOverview();
const root = document.getElementById("app");
if (root) render(<Frame />, root);
