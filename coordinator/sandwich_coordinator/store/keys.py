"""Every etcd key, here and nowhere else (prefix `/sandwich/<cluster>/`)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one cluster. `cluster` is checked where configuration is read."""

    cluster: str = "default"

    @property
    def prefix(self) -> str:
        """The prefix of all keys of the cluster."""
        return f"/sandwich/{self.cluster}/"

    @property
    def config(self) -> str:
        return f"{self.prefix}config"

    def tables(self) -> dict[str, str]:
        """The prefix of each kind of record that a `ClusterView` decodes, by the name of its mapping there."""
        return {
            "claims": self.claims,
            "sessions": self.sessions,
            "pins": self.pins,
            "restarts": self.restarts,
            "identifies": self.identifies,
            "budgets": self.budgets,
            "nodes": self.nodes,
            "departed": self.departed,
            "apps": self.apps,
            "groups": self.groups,
            "rollouts": self.rollouts,
            "group_numbers": self.group_numbers,
            "proposals": self.proposals,
            "removals": self.removals,
            "webhooks": self.webhooks,
            "webhook_states": self.webhook_states,
            "tokens": self.tokens,
            "users": self.users,
            "sign_ins": self.sign_ins,
            "plans": self.plans,
        }

    @property
    def leader(self) -> str:
        return f"{self.prefix}leader"

    @property
    def nodes(self) -> str:
        return f"{self.prefix}nodes/"

    @property
    def apps(self) -> str:
        return f"{self.prefix}apps/"

    @property
    def groups(self) -> str:
        return f"{self.prefix}groups/"

    @property
    def plans(self) -> str:
        return f"{self.prefix}plan/"

    @property
    def rollouts(self) -> str:
        return f"{self.prefix}rollouts/"

    @property
    def group_numbers(self) -> str:
        return f"{self.prefix}group-numbers/"

    @property
    def proposals(self) -> str:
        return f"{self.prefix}proposals/"

    @property
    def removals(self) -> str:
        return f"{self.prefix}removals/"

    @property
    def claims(self) -> str:
        return f"{self.prefix}claims/"

    @property
    def sessions(self) -> str:
        return f"{self.prefix}sessions/"

    @property
    def pins(self) -> str:
        return f"{self.prefix}pins/"

    @property
    def restarts(self) -> str:
        return f"{self.prefix}restarts/"

    @property
    def identifies(self) -> str:
        return f"{self.prefix}identify/"

    @property
    def budgets(self) -> str:
        return f"{self.prefix}budget/"

    @property
    def requests(self) -> str:
        """Answers of the HTTP API. Not under `prefix`: no node mirrors them."""
        return f"/sandwich-requests/{self.cluster}/"

    @property
    def departed(self) -> str:
        return f"{self.prefix}departed/"

    @property
    def webhooks(self) -> str:
        return f"{self.prefix}webhooks/"

    @property
    def webhook_states(self) -> str:
        return f"{self.prefix}webhook-states/"

    def webhook(self, name: str) -> str:
        return f"{self.webhooks}{name}"

    def webhook_state(self, name: str) -> str:
        return f"{self.webhook_states}{name}"

    @property
    def history(self) -> str:
        """Beside the cluster's prefix, as `audit`."""
        return f"/sandwich/{self.cluster}.history/"

    def history_point(self, minute: int) -> str:
        return f"{self.history}{minute:010}"

    @property
    def audit(self) -> str:
        """Beside the cluster's prefix, which every node mirrors: a cluster's name has no dot."""
        return f"/sandwich/{self.cluster}.audit/"

    @property
    def tokens(self) -> str:
        return f"{self.prefix}access/tokens/"

    @property
    def users(self) -> str:
        return f"{self.prefix}access/users/"

    @property
    def sign_ins(self) -> str:
        return f"{self.prefix}access/sign-ins/"

    def token(self, token_id: str) -> str:
        return f"{self.tokens}{token_id}"

    def user(self, user: str) -> str:
        return f"{self.users}{user}"

    def sign_in(self, user: str) -> str:
        return f"{self.sign_ins}{user}"

    def request(self, name: str) -> str:
        return f"{self.requests}{name}"

    def departed_node(self, node: str) -> str:
        return f"{self.departed}{node}"

    def node(self, node: str) -> str:
        return f"{self.nodes}{node}"

    def app(self, app: str) -> str:
        return f"{self.apps}{app}"

    def group(self, app: str, group: int) -> str:
        return f"{self.groups}{app}/{group}"

    def rollout(self, app: str) -> str:
        return f"{self.rollouts}{app}"

    def group_number(self, app: str) -> str:
        return f"{self.group_numbers}{app}"

    def proposal(self, app: str) -> str:
        return f"{self.proposals}{app}"

    def removal(self, app: str) -> str:
        return f"{self.removals}{app}"

    def plan(self, app: str, group: int) -> str:
        return f"{self.plans}{app}/{group}"

    def claim(self, app: str, group: int, shard: int) -> str:
        return f"{self.claims}{app}/{group}/{shard}"

    def session(self, app: str, group: int, shard: int) -> str:
        return f"{self.sessions}{app}/{group}/{shard}"

    def pin(self, app: str, group: int, shard: int) -> str:
        return f"{self.pins}{app}/{group}/{shard}"

    def restart(self, app: str, group: int, shard: int) -> str:
        return f"{self.restarts}{app}/{group}/{shard}"

    def identify(self, token_hash: str, bucket: int) -> str:
        return f"{self.identifies}{token_hash}/{bucket}"

    def budget(self, token_hash: str) -> str:
        return f"{self.budgets}{token_hash}"
