-- The record: who wrote last, and how far.

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
-- Before anything else is written: a server that is full or read-only refuses here, and nothing was done by halves.
if written then
  local reply = redis.pcall('SET', record, written, 'EX', RECORD_TTL_S)
  if type(reply) == 'table' and reply.err then return redis.error_reply((string.gsub(reply.err, '^%-', ''))) end
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

-- Changes of a guild that only those make who are in it, and which argument says that what was replaced is told ('':
-- always). Until the application is told of a guild again that Redis lost, it can not say what it sees there and how far
-- it is; and what it is told then has all that came before.
local OF_THOSE_IN_IT = {
  set = '', list = '', del = '', channel_del = 2, guild_set = '', member_set = '', member_del = 3, patch = 4,
  put = false, forum_post = false, tally = false, threads_sync = false, thread_left = false, posted = false,
  unposted = false, join = false, role_strip = false, learn = false,
}

local function is_too_early(name, from)
  local told = OF_THOSE_IN_IT[name]
  if told == nil or not is_strange(ARGV[from]) then return false end
  if told == '' or (told and ARGV[from + told] == '1') then out('b', 'null') end
  return true
end

local at, stop = FIRST, #ARGV
while at <= stop do
  seq = ARGV[at]
  local name, from = ARGV[at + 1], at + 3
  at = from + tonumber(ARGV[at + 2])
  if not follow and tonumber(seq) <= stood then
    replayed[seq], is_replay = true, true
  elseif follow and name == 'leave' and tonumber(seq) <= stood then
    -- A READY that is replayed says again what was left then; the guild has had later events of the session since.
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
