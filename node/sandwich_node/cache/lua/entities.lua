-- Never move a channel's last message back, which the event of a slower application would do.
local function with_last_message(old, new)
  local was = old and match(old, '"last_message_id":"(%d+)"')
  local is = match(new, '"last_message_id":"?(%w+)')
  if not was or not is or (is ~= 'null' and not is_later(was, is)) then return new end
  return merge(new, '{"last_message_id":"' .. was .. '"}')
end

-- Store a whole channel or thread. Other applications may see more of it, have later counts, or know the status of a
-- voice channel, which neither GUILD_CREATE nor CHANNEL_CREATE contains.
local function place_put(guild, letter, id, new)
  local key = GUILD .. guild .. '}:' .. NAMES[letter]
  local old = valid(call('HGET', key, id))
  if letter == 'c' then
    local was_lost, is_lost_to_all
    new, was_lost, is_lost_to_all = channel_for_all(guild, id, new, old)
    if is_lost_to_all then
      messages_drop(guild, id)
    elseif is_shared(guild) then
      new = with_last_message(old, new)
      if old and has_voice_status(old) then
        voice_unreported(guild, id)
        if is_voiced_by_others(guild, id) then new = merge(old, new, VOICE_STATUS) end
      end
    end
  else
    thread_seen(guild, id)
    new = counted(guild, letter, id, old, new, true)
  end
  call('HSET', key, id, new)
end

-- guild, letter, '1' to replace the collection, then id, JSON ...
op.put = function(a, z)
  local guild, letter = ARGV[a], ARGV[a + 1]
  local key = GUILD .. guild .. '}:' .. NAMES[letter]
  if letter == 'x' and is_shared(guild) then
    for at = a + 3, z, 2 do ARGV[at + 1] = counted(guild, letter, ARGV[at], valid(call('HGET', key, ARGV[at])), ARGV[at + 1]) end
  end
  if ARGV[a + 2] == '1' and may_replace(guild, letter) then call('UNLINK', key) end
  local is_place = letter == 'c' or letter == 't'
  for at = a + 3, is_place and z or 0, 2 do
    if is_shared(guild) or is_hidden(ARGV[at + 1]) then place_put(guild, letter, ARGV[at], ARGV[at + 1]) end
  end
  if not is_place or not is_shared(guild) then many('HSET', key, a + 3, z, CHUNK) end
end

-- guild, letter, ids: all channels or threads that the application sees
op.only = function(a, z)
  local guild, letter, listed = ARGV[a], ARGV[a + 1], {}
  for at = a + 2, z do listed[ARGV[at]] = true end
  for _, id in ipairs(call('HKEYS', GUILD .. guild .. '}:' .. NAMES[letter])) do
    if not listed[id] then
      if letter == 't' then
        thread_lost(guild, id)
      else
        call('HDEL', GUILD .. guild .. '}:' .. NAMES.c, id)
        channel_forgotten(guild, id)
        messages_drop(guild, id)
      end
    end
  end
  if letter == 't' and find(letters, 'c', 1, true) then
    -- If Redis lost a thread that then ended before the next GUILD_CREATE, only its messages may exist.
    local base = GUILD .. guild .. '}:'
    for _, place in ipairs(call('SMEMBERS', base .. 'talking')) do
      local is_known = listed[place] or call('HEXISTS', base .. NAMES.c, place) == 1
      if not is_known and call('HEXISTS', base .. NAMES.t, place) == 0 then messages_drop(guild, place) end
    end
  end
end

-- guild, letter, '1' to replace the collection, then id, JSON ...; `before` is the list of the old values
op.list = function(a, z)
  local key, olds = GUILD .. ARGV[a] .. '}:' .. NAMES[ARGV[a + 1]], {}
  if ARGV[a + 2] == '1' then
    for _, old in ipairs(call('HVALS', key)) do olds[#olds + 1] = valid(old) end
  else
    for at = a + 3, z, 2 do olds[#olds + 1] = valid(call('HGET', key, ARGV[at])) end
  end
  local new = {}
  for at = a + 4, z, 2 do new[#new + 1] = ARGV[at] end
  table.sort(olds)
  table.sort(new)
  before(ARGV[a], ARGV[a + 1], array(olds), array(new))
  op.put(a, z)
end

-- guild, letter, mode (r replace, m merge, k replace but keep a voice channel's status), id, JSON
op.set = function(a)
  local guild, letter, mode, id, new = ARGV[a], ARGV[a + 1], ARGV[a + 2], ARGV[a + 3], ARGV[a + 4]
  local key = GUILD .. guild .. '}:' .. NAMES[letter]
  local old, is_lost, is_lost_to_all = valid(call('HGET', key, id)), false, false
  if (letter == 'p' or letter == 'v') and has_left(guild, id) then return before(guild, letter .. id, old, old) end
  if letter == 'c' then
    new, is_lost, is_lost_to_all = channel_for_all(guild, id, new, old)
    if is_shared(guild) and not is_lost_to_all then new = with_last_message(old, new) end
  elseif letter == 't' then
    thread_seen(guild, id)
  end
  if old and mode == 'm' then
    new = merge(old, counted(guild, letter, id, old, new))
  elseif old and mode == 'k' and not is_lost_to_all and has_voice_status(old) then
    new = merge(old, new, VOICE_STATUS)
  elseif letter == 'x' then
    new = counted(guild, letter, id, old, new)
  end
  before(guild, letter .. id, old, new)
  call('HSET', key, id, new)
  if is_lost then threads_lost(guild, id) end
  if is_lost_to_all then messages_drop(guild, id) end
end

-- guild, letters to search, id, JSON to merge into the first match, '1' to return the old value
op.patch = function(a)
  local guild, id, report = ARGV[a], ARGV[a + 2], ARGV[a + 4] == '1'
  for letter in string.gmatch(ARGV[a + 1], '.') do
    local key = GUILD .. guild .. '}:' .. NAMES[letter]
    local old = valid(call('HGET', key, id))
    if old then
      local is_seen = letter ~= 't' or not is_shared(guild) or sees_thread(guild, id)
      local new = is_seen and merge(old, counted(guild, letter, id, old, ARGV[a + 3])) or old
      if report then before(guild, letter .. id, old, new) end
      if letter == 'c' and is_shared(guild) and has_voice_status(ARGV[a + 3]) then voice_reported(guild, id, new ~= old) end
      return call('HSET', key, id, new)
    end
  end
  if report then out('b', 'null') end
end

-- guild, parent of a new thread, JSON to merge into a forum or media channel
op.forum_post = function(a)
  local key, id = GUILD .. ARGV[a] .. '}:' .. NAMES.c, ARGV[a + 1]
  local json = valid(call('HGET', key, id))
  local _, values = fields(json or '')
  if values and (values.type == '15' or values.type == '16') then call('HSET', key, id, merge(json, ARGV[a + 2])) end
end

-- guild, letter, id
op.del = function(a)
  local guild, letter, id = ARGV[a], ARGV[a + 1], ARGV[a + 2]
  local key = GUILD .. guild .. '}:' .. NAMES[letter]
  before(guild, letter .. id, valid(call('HGET', key, id)), nil)
  call('HDEL', key, id)
  if letter == 't' then thread_drop(guild, id) end
end

-- guild, letter, id, field, change: a counter, which only one application of the guild changes
op.tally = function(a)
  local guild, key = ARGV[a], GUILD .. ARGV[a] .. '}:' .. NAMES[ARGV[a + 1]]
  local json = call('HGET', key, ARGV[a + 2])
  local from, to, number = find(json or '', '"' .. ARGV[a + 3] .. '":(%d+)')
  -- Repeated after a resync, the event is most likely in the count already.
  if from and counts(guild) and not follow then
    number = format('%d', math.max(0, tonumber(number) + tonumber(ARGV[a + 4])))
    call('HSET', key, ARGV[a + 2], sub(json, 1, from + #ARGV[a + 3] + 2) .. number .. sub(json, to + 1))
  end
end

-- The ids of the collection's entities that have the channel in this field
local function those_in(guild, letter, field, channel)
  local found, named = {}, '"' .. channel .. '"'
  local all = call('HGETALL', GUILD .. guild .. '}:' .. NAMES[letter])
  for at = 1, #all, 2 do
    if find(all[at + 1], '"' .. field .. '":' .. named, 1, true) then
      local _, values = fields(all[at + 1])
      if values and values[field] == named then found[#found + 1] = all[at] end
    end
  end
  return found
end

-- guild, channel, '1' when channels are kept: Discord sends no events for what the channel contains
op.channel_del = function(a)
  local guild, channel, base = ARGV[a], ARGV[a + 1], GUILD .. ARGV[a] .. '}:'
  if ARGV[a + 2] == '1' then before(guild, 'c' .. channel, valid(call('HGET', base .. NAMES.c, channel)), nil) end
  call('HDEL', base .. NAMES.c, channel)
  messages_drop(guild, channel)
  channel_forgotten(guild, channel)
  for _, thread in ipairs(those_in(guild, 't', 'parent_id', channel)) do thread_drop(guild, thread) end
  for letter in string.gmatch('gxv', '.') do
    for _, id in ipairs(those_in(guild, letter, 'channel_id', channel)) do call('HDEL', base .. NAMES[letter], id) end
  end
end

-- guild, number of parents or -1 for all, parents, then id, JSON ...
op.threads_sync = function(a, z)
  local guild, count = ARGV[a], tonumber(ARGV[a + 1])
  local key, parents, listed = GUILD .. guild .. '}:' .. NAMES.t, {}, {}
  for at = a + 2, a + 1 + count do parents[ARGV[at]] = true end
  local from = a + 2 + math.max(0, count)
  for at = from, z, 2 do listed[ARGV[at]] = true end
  local known = call('HGETALL', key)
  for at = 1, #known, 2 do
    local parent = match(known[at + 1], '"parent_id":"(%d+)"')
    if not listed[known[at]] and (count < 0 or parents[parent]) then thread_lost(guild, known[at]) end
  end
  for at = from, z, 2 do place_put(guild, 't', ARGV[at], ARGV[at + 1]) end
end

-- guild, thread: the bot was removed from it, and does not see a private thread any more
op.thread_left = function(a)
  local key, id = GUILD .. ARGV[a] .. '}:' .. NAMES.t, ARGV[a + 1]
  local json = valid(call('HGET', key, id))
  local _, values = fields(json or '')
  if values and values.type == '12' and thread_lost(ARGV[a], id) then return end
  if not values or not values.member then return end
  if not is_shared(ARGV[a]) or leads(ARGV[a], id) then
    call('HSET', key, id, merge(json, '{"member":null}'))
  elseif sees_thread(ARGV[a], id) then
    own_put(ARGV[a], id, '{"member":null}')
  end
end
