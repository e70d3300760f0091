import "./app.css";
import "./ui/theme";
import { render } from "preact";
import { Frame } from "./frame";
import { startRouter } from "./router";
import { askWhoIsThere } from "./state/session";

startRouter();
void askWhoIsThere();
const root = document.getElementById("app");
if (root) render(<Frame />, root);
