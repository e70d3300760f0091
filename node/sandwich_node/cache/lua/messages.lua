-- Whether another application's stream has already ended the channel or thread. An application that does not see it any
-- more receives no event for its end, and would leave its messages in the cache.
local function is_over(guild, place)
  if not is_shared(guild) or not (find(letters, 'c', 1, true) and find(letters, 't', 1, true)) then return false end
  local base = GUILD .. guild .. '}:'
  return call('HEXISTS', base .. NAMES.c, place) == 0 and call('HEXISTS', base .. NAMES.t, place) == 0
end

-- guild, channel, message id, Unix ms of the message, JSON, how many to keep, how long in ms, then
-- '1': an update of a message, 'm': only its changed fields, which are merged into a cached message
op.message = function(a)
  local guild, channel, id, base = ARGV[a], ARGV[a + 1], ARGV[a + 2], GUILD .. ARGV[a] .. '}:'
  local key, order, new = base .. 'messages:' .. channel, base .. 'messages:' .. channel .. ':order', ARGV[a + 4]
  if ARGV[a + 7] ~= '0' then
    local old = valid(call('HGET', key, id))
    local is_partial = ARGV[a + 7] == 'm'
    if is_partial and old then new = merge(old, new) end
    before(guild, 'w' .. id, old, (old or not is_partial) and new or nil)
    if is_partial and not old then return end
  end
  if is_over(guild, channel) then return end
  call('HSET', key, id, new)
  call('ZADD', order, ARGV[a + 3], id)
  local now = redis.call('TIME')
  local oldest = format('(%.0f', now[1] * 1000 - tonumber(ARGV[a + 6]))
  local old = call('ZRANGEBYSCORE', order, '-inf', oldest, 'LIMIT', 0, CHUNK)
  if not old[1] then old = call('ZRANGE', order, 0, -tonumber(ARGV[a + 5]) - 1) end
  if old[1] then
    call('HDEL', key, unpack(old))
    call('ZREM', order, unpack(old))
  end
  call('PEXPIRE', key, ARGV[a + 6])
  call('PEXPIRE', order, ARGV[a + 6])
  call('SADD', base .. 'talking', channel)
end

-- JSON with a number changed, if it has the field
local function add_to(json, name, change)
  local from, to, number = find(json, '"' .. name .. '":(%d+)')
  if not from then return json end
  return sub(json, 1, from + #name + 2) .. format('%d', math.max(0, tonumber(number) + change)) .. sub(json, to + 1)
end

-- The key and field in which this application counts a thread's messages
local function counts_of(guild, thread)
  local base = GUILD .. guild .. '}:'
  if not is_shared(guild) or leads(guild, thread) then return base .. NAMES.t, thread end
  return base .. 'own', app .. ' ' .. thread
end

-- guild, channel or thread, message: its last message, unless a later one was applied before
op.posted = function(a)
  local guild, channel, id = ARGV[a], ARGV[a + 1], ARGV[a + 2]
  local key, field, json = GUILD .. guild .. '}:' .. NAMES.c, channel, nil
  json = valid(call('HGET', key, channel))
  local is_thread = not json
  if is_thread then
    key, field = counts_of(guild, channel)
    json = valid(call('HGET', key, field))
  end
  if not json then return end
  local from, to, last = find(json, '"last_message_id":"(%d+)"')
  if not from then
    json = merge(json, '{"last_message_id":"' .. id .. '"}')
  elseif is_later(id, last) then
    json = sub(json, 1, from + 18) .. id .. sub(json, to)
  else
    return
  end
  if is_thread then json = add_to(add_to(json, 'message_count', 1), 'total_message_sent', 1) end
  call('HSET', key, field, json)
end

-- guild, thread, messages: deleted ones no longer count
op.unposted = function(a, z)
  -- Repeated after a resync, the event is most likely in the count already.
  if follow then return end
  local key, field = counts_of(ARGV[a], ARGV[a + 1])
  local json = valid(call('HGET', key, field))
  if json then call('HSET', key, field, add_to(json, 'message_count', a + 1 - z)) end
end

-- guild, channel, '1' when before is a list, message ids
op.message_del = function(a, z)
  local guild, channel, base = ARGV[a], ARGV[a + 1], GUILD .. ARGV[a] .. '}:'
  local key, olds = base .. 'messages:' .. channel, {}
  for at = a + 3, z do
    local id = ARGV[at]
    local old = valid(call('HGET', key, id))
    if ARGV[a + 2] == '1' then olds[#olds + 1] = old else before(guild, 'w' .. id, old, nil) end
    call('HDEL', key, id)
    call('ZREM', key .. ':order', id)
  end
  if ARGV[a + 2] == '1' then out('b', array(olds)) end
end

-- Users: user id, JSON; `user` also a guild or ''
op.user = function(a) user_put(ARGV[a], ARGV[a + 1], ARGV[a + 2] ~= '' and ARGV[a + 2] or nil) end
op.user_drop = function(a) user_drop(ARGV[a], ARGV[a + 1]) end
op.user_patch = function(a)
  local key = USER .. ARGV[a] .. '}'
  local old = valid(call('GET', key))
  if old then call('SET', key, merge(old, ARGV[a + 1])) end
end
op.user_set = function(a)
  local key, new = USER .. ARGV[a] .. '}', ARGV[a + 1]
  local old = valid(call('GET', key))
  out('b', old or 'null')
  call('SET', key, old and merge(old, new) or new)
end

-- The locations of the application's guilds.

-- The listed guilds are all guilds of the shard. The bot left the others while no session was connected.
local function list(from, to)
  local listed = {}
  for at = from, to do listed[ARGV[at]] = true end
  for _, guild in ipairs(call('SMEMBERS', index)) do
    if not listed[guild] then
      if call('HGET', GUILDS, guild) == location then
        call('HDEL', GUILDS, guild)
        call('HDEL', waiting, guild)
        if inline then leave(guild) else out('g', guild, guild) end
      end
      call('SREM', index, guild)
    end
  end
  for at = from, to do
    call('HSET', GUILDS, ARGV[at], location)
    call('SADD', index, ARGV[at])
  end
end

-- '', then all guilds of the shard: `ready` for a new session, `listed` for a resync
op.ready = function(a, z)
  list(a + 1, z)
  for at = a + 1, z do call('HSET', waiting, ARGV[at], 'l') end
end
op.listed = function(a, z) list(a + 1, z) end

local function locate(guild)
  local holder = match(call('HGET', GUILDS, guild) or '', '^%d+')
  if not holder or tonumber(holder) <= group then call('HSET', GUILDS, guild, location) end
  call('SADD', index, guild)
end

op.arrive = function(a)
  local guild = ARGV[a]
  out('a', call('HGET', waiting, guild) or '')
  call('HDEL', waiting, guild)
  locate(guild)
end

op.down = function(a)
  local was = call('HGET', waiting, ARGV[a]) or ''
  out('a', (find(was, 'l', 1, true) and 'l' or '') .. 'u')
  if not find(was, 'u', 1, true) then call('HSET', waiting, ARGV[a], was .. 'u') end
  -- The bot may have been added to a guild in an outage. No other event reports that.
  locate(ARGV[a])
end

op.depart = function(a)
  out('a', '')
  local holder = match(call('HGET', GUILDS, ARGV[a]) or '', '^%d+')
  call('SREM', index, ARGV[a])
  if holder and tonumber(holder) > group then return end
  call('HDEL', GUILDS, ARGV[a])
  call('HDEL', waiting, ARGV[a])
end
