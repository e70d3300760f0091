"""The part of the cache's model for channels, threads, messages and scheduled events."""

from tests.support.cache_visibility import VOICE_STATUS, Json, Visibility, last_message


def has_ended(event: Json) -> bool:
    """Whether a scheduled event is completed or canceled."""
    return event.get("status") in (3, 4)


class Places(Visibility):
    """The changes of an event to these."""

    def on_channel_create(self, d: Json) -> None:
        self.put_place("c", d)

    def on_channel_update(self, d: Json) -> None:
        old = self.guild.of["c"].get(d["id"], {})
        new, is_lost, is_lost_to_all = self.for_all(d["id"], d)
        kept = last_message(old, new) if self.is_shared else {}
        kept |= {key: old[key] for key in VOICE_STATUS if key in old and key not in new}
        self.change("c", d["id"], new if is_lost_to_all else new | kept)
        if is_lost:
            self.lose_threads(d["id"])
        if is_lost_to_all:
            self.guild.messages.pop(d["id"], None)

    def on_channel_delete(self, d: Json) -> None:
        self.remove("c", d["id"])
        guild = self.guild
        self.forget_channel(d["id"])
        for thread in [key for key, value in guild.of["t"].items() if value["parent_id"] == d["id"]]:
            self.drop_thread(thread)
        for letter in "gxv":
            held = guild.of[letter]
            for key in [key for key, value in held.items() if value.get("channel_id") == d["id"]]:
                del held[key]

    def on_channel_pins_update(self, d: Json) -> None:
        self.patch("ct", d["channel_id"], {"last_pin_timestamp": d["last_pin_timestamp"]})

    def on_voice_channel_status_update(self, d: Json) -> None:
        self.patch("c", d["id"], {"status": d["status"]})

    def on_thread_create(self, d: Json) -> None:
        is_new = d.pop("newly_created", False)
        self.put_place("t", d)
        parent = self.guild.of["c"].get(d["parent_id"])
        if is_new and parent is not None and parent["type"] in (15, 16):
            parent["last_message_id"] = d["id"]

    def on_thread_update(self, d: Json) -> None:
        if d["thread_metadata"]["archived"]:
            self.remove("t", d["id"])
        else:
            self.see_thread(d["id"])
            self.change("t", d["id"], d, merge=True)

    def on_thread_delete(self, d: Json) -> None:
        self.remove("t", d["id"])

    def on_thread_list_sync(self, d: Json) -> None:
        listed = {thread["id"] for thread in d["threads"]}
        for key, thread in list(self.guild.of["t"].items()):
            if key not in listed and ("channel_ids" not in d or thread["parent_id"] in d["channel_ids"]):
                self.lose_thread(key)
        for thread in d["threads"]:
            mine = [member for member in d["members"] if member["id"] == thread["id"]]
            self.put_place("t", thread | ({"member": mine[0]} if mine else {}))

    def on_thread_member_update(self, d: Json) -> None:
        self.patch("t", d["id"], {"member": d})

    def on_thread_members_update(self, d: Json) -> None:
        new: Json = {"member_count": d["member_count"]}
        for member in d.get("added_members", ()):
            if member["user_id"] == self.writer.bot:
                new["member"] = member
        self.patch("t", d["id"], new)
        thread = self.guild.of["t"].get(d["id"])
        if self.writer.bot in d.get("removed_member_ids", ()) and thread is not None:
            if thread["type"] == 12 and self.lose_thread(d["id"]):
                return
            if "member" in thread:
                if not self.is_shared or self.leads(d["id"])[0]:
                    thread["member"] = None
                elif self.app in self.guild.seen.get(d["id"], []):
                    self.keep_own(d["id"], {"member": None})

    def store_message(self, d: Json) -> None:
        places = {*self.guild.of["c"], *self.guild.of["t"]}
        is_over = self.is_shared and {"c", "t"} <= set(self.writer.maintains) and d["channel_id"] not in places
        if self.writer.settings.messages_per_channel and not is_over:
            held = self.guild.messages.setdefault(d["channel_id"], {})
            held[d["id"]] = d
            while len(held) > self.writer.settings.messages_per_channel:
                del held[min(held, key=int)]

    def on_message_create(self, d: Json) -> None:
        self.store_message(d)
        for letter in "" if self.is_absent else "ct":
            place = self.guild.of[letter].get(d["channel_id"]) if letter in self.on else None
            if place is not None and letter == "t":
                place = self.counted_thread(d["channel_id"])
            if place is None:
                continue
            if int(d["id"]) > int(place.get("last_message_id") or 0):
                place["last_message_id"] = d["id"]
                for name in ("message_count", "total_message_sent"):
                    if letter == "t" and name in place:
                        place[name] += 1
            return

    def on_message_update(self, d: Json) -> None:
        if self.writer.settings.messages_per_channel:
            old = self.guild.messages.get(d["channel_id"], {}).get(d["id"])
            is_partial = not {"author", "content"} <= d.keys()
            new = (old | d if old else None) if is_partial else d
            self.before("w" + d["id"], old, new)
            if new is not None:
                self.store_message(new)

    def on_message_delete(self, d: Json) -> None:
        if self.writer.settings.messages_per_channel:
            old = self.guild.messages.get(d["channel_id"], {}).pop(d["id"], None)
            self.before("w" + d["id"], old, None)
        thread = self.counted_thread(d["channel_id"])
        is_counted = "t" in self.on and d["id"] != d["channel_id"] and not self.is_absent
        if thread is not None and is_counted and "message_count" in thread:
            thread["message_count"] = max(0, thread["message_count"] - 1)

    def on_guild_scheduled_event_create(self, d: Json) -> None:
        if not has_ended(d):
            self.upsert("x", d["id"], d)

    def on_guild_scheduled_event_update(self, d: Json) -> None:
        if has_ended(d):
            self.remove("x", d["id"])
        else:
            self.change("x", d["id"], d, merge=True)

    def on_guild_scheduled_event_delete(self, d: Json) -> None:
        self.remove("x", d["id"])

    def on_guild_scheduled_event_user_add(self, d: Json) -> None:
        event = self.guild.of["x"].get(d["guild_scheduled_event_id"], {})
        if "user_count" in event and (not self.is_shared or self.app == min(self.guild.apps)):
            event["user_count"] += 1
