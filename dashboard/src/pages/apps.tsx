import type { JSX } from "preact";
import type { AppSummary } from "../api/types";
import { useResource } from "../state/resource";
import { addsApps } from "../state/session";
import { AppTable } from "../ui/apptable";
import { plural } from "../ui/format";
import { Page } from "../ui/page";
import { Empty, Loaded } from "../ui/parts";

export function AppsPage(): JSX.Element {
  const apps = useResource<AppSummary[]>("/apps", { all: true, every: 5000, on: ["app/", "group/", "shard/", "figures"] });
  return (
    <Page
      title="Applications"
      name="Applications"
      sub={apps.data && plural(apps.data.length, "application")}
      actions={
        addsApps.value && (
          <a class="button" href="/apps/+new">
            Add an application
          </a>
        )
      }
    >
      <Loaded from={apps}>
        {(found) =>
          found.length ? (
            <AppTable apps={found} />
          ) : (
            <Empty>An application is one bot: its token, its intents, and how many shards it has. None is here yet.</Empty>
          )
        }
      </Loaded>
    </Page>
  );
}
