-- Operations that require guild membership, with the argument that requests `before` ('': always, false: never). If
-- Redis lost a guild that other applications have written again, this application's operations are skipped until its
-- own GUILD_CREATE. That event contains the effect of all skipped ones.
local REQUIRES_MEMBERSHIP = {
  set = '', list = '', del = '', channel_del = 2, guild_set = '', member_set = '', member_del = 3, patch = 4,
  put = false, forum_post = false, tally = false, threads_sync = false, thread_left = false, posted = false,
  unposted = false, join = false, role_strip = false, learn = false,
}

local function is_too_early(name, from)
  local shows_before = REQUIRES_MEMBERSHIP[name]
  if shows_before == nil or not is_strange(ARGV[from]) then return false end
  if shows_before == '' or (shows_before and ARGV[from + shows_before] == '1') then out('b', 'null') end
  return true
end

local function refused(reason)
  return redis.error_reply((string.gsub(reason, '^%-', '')))
end

-- Apply the operations from `at` to `stop`.
local function apply(at, stop)
  -- The record: the fence and session of the last write, and its sequence.
  local stood, text, written = -1, call('GET', record), nil
  if text then
    local holder, of, at = match(text, '^(%d+) (%S+) (%d+)$')
    if not holder then
      poisoned = poisoned + 1
    elseif tonumber(holder) > fence then
      return {tonumber(holder), -1, poisoned, 0, '', results}
    else
      if of == session then stood = tonumber(at) end
      if follow then written = format('%.0f %s %s', fence, of, at) end
    end
  end
  if not follow then written = format('%.0f %s %.0f', fence, session, math.max(stood, last)) end
  -- Write the record first: a server that is full or read-only refuses it here, and nothing is applied in part.
  if written then
    local reply = redis.pcall('SET', record, written, 'EX', RECORD_TTL_S)
    if type(reply) == 'table' and reply.err then return refused(reply.err) end
  end

  local replayed, is_replay = {}, false
  if not follow then
    if stood < 0 or confirmed >= stood then
      call('DEL', pending)
    elseif call('HLEN', pending) > PENDING_MAX then
      call('DEL', pending)
    else
      for _, field in ipairs(call('HKEYS', pending)) do
        if tonumber(match(field, '^%d+')) <= confirmed then call('HDEL', pending, field) end
      end
    end
  end

  while at <= stop do
    seq = ARGV[at]
    local name, from = ARGV[at + 1], at + 3
    at = from + tonumber(ARGV[at + 2])
    if not follow and tonumber(seq) <= stood then
      replayed[seq], is_replay = true, true
    elseif follow and name == 'leave' and tonumber(seq) <= stood then
      -- A replayed READY repeats the departures of that time; later events of the session were applied since.
    elseif not is_too_early(name, from) then
      local done, reason = pcall(op[name], from, at - 1)
      if not done then
        failed = failed + 1
        if failure == '' then failure = name .. ': ' .. (type(reason) == 'table' and reason.err or tostring(reason)) end
      end
    end
  end

  if is_replay then
    local known = call('HGETALL', pending)
    for n = 1, #known, 2 do
      if replayed[match(known[n], '^%d+')] then
        results[#results + 1], results[#results + 2] = known[n], known[n + 1]
      end
    end
  end
  if not follow and kept[1] then
    for n = 1, #kept, CHUNK do call('HSET', pending, unpack(kept, n, min(n + CHUNK - 1, #kept))) end
    call('EXPIRE', pending, PENDING_TTL_S)
  end
  return {0, stood, poisoned, failed, failure, results}
end

local replies, at = {}, 1
for key = 1, #KEYS, 2 do
  local stop = at + tonumber(ARGV[at])
  local done, reply = pcall(apply, begin(key, at + 1), stop)
  if not done then reply = refused(type(reply) == 'table' and reply.err or tostring(reply)) end
  replies[#replies + 1], at = reply, stop + 1
end
return replies
