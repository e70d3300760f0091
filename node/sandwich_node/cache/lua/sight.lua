-- The visibility of channels and threads in guilds that several applications share. When no application sees a thread
-- any more, it is removed; a channel is stored as hidden.
--   seen    thread -> " app app ", in the order in which they first saw it
--   own     "app thread" -> the thread's counts and own membership as received by this application, if it does not lead
--   unseen  "app channel" -> the channel as Discord shows it to a bot that may not view it
--   voiced  channel -> " app app ", the applications that received its current voice status, which GUILD_CREATE lacks

-- Channels that the bot may not view have the flag 1 << 17, and lack the fields for those who may.
local function is_hidden(json)
  for flags in string.gmatch(json, '"flags":(%d+)') do
    if math.floor(tonumber(flags) / 131072) % 2 == 1 then
      local _, values = fields(json)
      return values ~= nil and values.flags == flags
    end
  end
  return false
end

-- The other applications that keep channels, by name.
local function other_viewers(guild)
  local names, by = {}, call('HGETALL', GUILD .. guild .. '}:by')
  for at = 1, #by, 2 do
    if by[at] ~= app and find(match(by[at + 1], '^%l*') or '', 'c', 1, true) then names[#names + 1] = by[at] end
  end
  return names
end

local function views(guild, who, channel)
  return call('HEXISTS', GUILD .. guild .. '}:unseen', who .. ' ' .. channel) == 0
end

local VOICE_STATUS = {status = true, voice_start_time = true}
local function has_voice_status(json)
  return find(json, '"status":', 1, true) or find(json, '"voice_start_time":', 1, true)
end

local function voice_reported(guild, channel, is_new)
  local key = GUILD .. guild .. '}:voiced'
  local apps = not is_new and call('HGET', key, channel) or ' '
  if not find(apps, ' ' .. app .. ' ', 1, true) then call('HSET', key, channel, apps .. app .. ' ') end
end

-- The application may have missed changes of the channel's voice status.
local function voice_unreported(guild, channel)
  local key = GUILD .. guild .. '}:voiced'
  local apps = call('HGET', key, channel) or ' '
  local from, to = find(apps, ' ' .. app .. ' ', 1, true)
  if from then call('HSET', key, channel, sub(apps, 1, from) .. sub(apps, to + 1)) end
end

-- Whether another application would have received a change of the channel's voice status.
local function is_voiced_by_others(guild, channel)
  local apps = call('HGET', GUILD .. guild .. '}:voiced', channel) or ' '
  for _, other in ipairs(other_viewers(guild)) do
    if find(apps, ' ' .. other .. ' ', 1, true) and views(guild, other, channel) then return true end
  end
  return false
end

-- The channel JSON to store, given the JSON that the application received; whether this application stopped seeing it;
-- whether no application sees it. No event would report changes inside a channel that no application sees.
local function channel_for_all(guild, channel, json, old)
  local is_shown = old and not is_hidden(old)
  local field, key = app .. ' ' .. channel, GUILD .. guild .. '}:unseen'
  if not is_hidden(json) then
    if is_shared(guild) then call('HDEL', key, field) end
    return json, false, false
  elseif not is_shared(guild) then
    return json, is_shown, true
  end
  local is_new = call('HSET', key, field, json) == 1
  voice_unreported(guild, channel)
  for _, other in ipairs(other_viewers(guild)) do
    if is_shown and views(guild, other, channel) then return old, is_new, false end
  end
  return json, is_new, true
end

local function channel_forgotten(guild, channel)
  if not is_shared(guild) then return end
  local key = GUILD .. guild .. '}:unseen'
  call('HDEL', key, app .. ' ' .. channel)
  call('HDEL', GUILD .. guild .. '}:voiced', channel)
  for _, other in ipairs(other_viewers(guild)) do call('HDEL', key, other .. ' ' .. channel) end
end

local function thread_seen(guild, thread)
  if not is_shared(guild) then return end
  local key = GUILD .. guild .. '}:seen'
  local apps = call('HGET', key, thread) or ' '
  if not find(apps, ' ' .. app .. ' ', 1, true) then call('HSET', key, thread, apps .. app .. ' ') end
end

local function sees_thread(guild, thread)
  return find(call('HGET', GUILD .. guild .. '}:seen', thread) or '', ' ' .. app .. ' ', 1, true) ~= nil
end

local function has_member(thread)
  return find(thread, '"member":', 1, true) ~= nil
end

-- Another application leads for the thread: store its counts.
local function lead_passes(guild, thread, leader)
  local base = GUILD .. guild .. '}:'
  local json, own = valid(call('HGET', base .. NAMES.t, thread)), call('HGET', base .. 'own', leader .. ' ' .. thread)
  if not json or not own then return end
  if has_member(json) and not has_member(own) then json = merge(json, '{"member":null}') end
  call('HSET', base .. NAMES.t, thread, merge(json, own))
  call('HDEL', base .. 'own', leader .. ' ' .. thread)
end

-- The application does not see the thread any more. Remove the thread if no other one sees it.
local function thread_lost(guild, thread)
  if is_shared(guild) then
    local base = GUILD .. guild .. '}:'
    local apps = call('HGET', base .. 'seen', thread) or ' '
    local from, to = find(apps, ' ' .. app .. ' ', 1, true)
    if from then apps = sub(apps, 1, from) .. sub(apps, to + 1) end
    if apps ~= ' ' then
      call('HSET', base .. 'seen', thread, apps)
      call('HDEL', base .. 'own', app .. ' ' .. thread)
      if from == 1 then lead_passes(guild, thread, match(apps, '%S+')) end
      return false
    end
  end
  thread_drop(guild, thread)
  return true
end

local function threads_lost(guild, channel)
  local threads = call('HGETALL', GUILD .. guild .. '}:threads')
  for at = 1, #threads, 2 do
    if find(threads[at + 1], '"parent_id":"' .. channel .. '"', 1, true) then thread_lost(guild, threads[at]) end
  end
end

-- Each application receives the same counts at its own pace, so one of them leads. For a thread it is the one that saw
-- it first; for the member count it is the first that receives member events.
local THREAD_COUNTS = {'message_count', 'total_message_sent', 'last_message_id', 'member'}
local function leads(guild, thread)
  local first, of_members
  for name in string.gmatch(call('HGET', GUILD .. guild .. '}:seen', thread) or '', '%S+') do
    first = first or name
    if not of_members then
      local theirs = name == app and letters or call('HGET', GUILD .. guild .. '}:by', name) or ''
      if find(match(theirs, '^%l*'), 'm', 1, true) then of_members = name end
    end
  end
  first = first or app
  return first == app, (of_members or first) == app
end

-- The named fields of a JSON object, if present
local function picked(json, names)
  local _, values = fields(json)
  local held = {}
  for _, name in ipairs(names) do
    if values and values[name] then held[#held + 1] = '"' .. name .. '":' .. values[name] end
  end
  return '{' .. concat(held, ',') .. '}'
end

local function own_put(guild, thread, new, is_whole)
  local key, field = GUILD .. guild .. '}:own', app .. ' ' .. thread
  local own = picked(new, THREAD_COUNTS)
  local known = not is_whole and call('HGET', key, field)
  call('HSET', key, field, known and merge(known, own) or own)
end

-- The received entity with the counts of the application that leads
local function counted(guild, letter, id, old, new, is_whole)
  if not old or not is_shared(guild) then return new end
  if letter == 'x' then return counts(guild) and new or merge(new, picked(old, {'user_count'})) end
  if letter ~= 't' then return new end
  local messages, members = leads(guild, id)
  if not members then new = merge(new, picked(old, {'member_count'})) end
  if messages then return new end
  own_put(guild, id, new, is_whole)
  local held = picked(old, THREAD_COUNTS)
  if has_member(new) and not has_member(held) then held = merge(held, '{"member":null}') end
  return merge(new, held)
end

-- A second application joined the guild: everything stored so far is what the first one saw.
sharing_begins = function(guild)
  local base, first = GUILD .. guild .. '}:', nil
  for _, name in ipairs(call('SMEMBERS', base .. 'apps')) do first = name ~= app and name or first end
  for _, thread in ipairs(call('HKEYS', base .. NAMES.t)) do
    call('HSET', base .. 'seen', thread, ' ' .. first .. ' ')
  end
  local channels = call('HGETALL', base .. NAMES.c)
  for at = 1, #channels, 2 do
    local channel, json = channels[at], channels[at + 1]
    if is_hidden(json) then
      call('HSET', base .. 'unseen', first .. ' ' .. channel, json)
    elseif has_voice_status(json) then
      call('HSET', base .. 'voiced', channel, ' ' .. first .. ' ')
    end
  end
end

-- The application does not keep the guild, its channels or its threads any more: remove what only it saw.
sharing_ends = function(guild, gone)
  local base = GUILD .. guild .. '}:'
  if find(gone, 't', 1, true) then
    local seen = call('HGETALL', base .. 'seen')
    for at = 1, #seen, 2 do
      if find(seen[at + 1], ' ' .. app .. ' ', 1, true) then thread_lost(guild, seen[at]) end
    end
  end
  if not find(gone, 'c', 1, true) then return end
  local others_here, channels = other_viewers(guild), call('HGETALL', base .. NAMES.c)
  for at = 1, #channels, 2 do
    local channel, hidden = channels[at], nil
    call('HDEL', base .. 'unseen', app .. ' ' .. channel)
    for _, other in ipairs(others_here) do
      local shown = call('HGET', base .. 'unseen', other .. ' ' .. channel)
      if not shown then
        hidden = nil
        break
      end
      hidden = shown
    end
    if hidden and not is_hidden(channels[at + 1]) then
      call('HSET', base .. NAMES.c, channel, hidden)
      messages_drop(guild, channel)
    end
  end
end
