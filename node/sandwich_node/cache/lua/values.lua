-- Cache operations of shards on one slot, each shard's applied in order and at most once. A call has a part for each
-- shard, since a call costs more than what it does for one event. Parts do not depend on each other.
--
-- KEYS  of each part: the shard's record here: "fence session sequence", and the results of events not yet confirmed, by
--       sequence
-- ARGV  of each part: the number of its arguments that follow, then
--       1 fence  2 session  3 last sequence after this part  4 confirmed sequence  5 flags  6 application  7 location
--       8 letters of the collections it maintains  9 its bot's user id  10 to 13 key prefixes: guild, user, mutual, guilds
--       then operations: sequence, name, number of arguments, arguments
-- flags i: all keys are on this server, so users are kept in the same call   f: a follow-up, which has no sequence of its own
-- Returns for each part an error, or
--         {fence of the record when it is newer, else 0, sequence before this call (-1: no record of this session),
--          values that were damaged, operations that failed, the first failure, {"<sequence><kind><guild>", value ...}}
-- kinds  b before  a arrival ("l" announced by READY, "u" back from an outage)  e guild and users who left it  p user learned
--        s guild, role and cursor: members to remove a role from
--        g guild that the bot left  d guild with more members to remove  k removed members that `drain` may forget
-- Runs on Redis 6.2. Values are spliced as text: cjson would round large numbers and turn [] into {}.

local NAMES = {--[[NAMES]]}
local RECORD_TTL_S, PENDING_TTL_S, PENDING_MAX = 604800, 900, 32768
local DRAIN_MAX, CHUNK, PREVIOUS_TTL_S, PREVIOUS_MAX, GONE_TTL_S, GONE_MAX = 1000, 512, 60, 1024, 300, 8192

local byte, find, format, match, sub = string.byte, string.find, string.format, string.match, string.sub
local concat, min = table.concat, math.min
local record, pending, fence, session, last, confirmed, inline, follow
local app, location, letters, bot, GUILD, USER, MUTUAL, GUILDS, group, index, waiting
local poisoned, failed, failure, seq, results, kept
local shared, strange

-- Begin the part whose keys are at `key` and whose arguments are at `at`; returns where its operations begin.
local function begin(key, at)
  record, pending = KEYS[key], KEYS[key + 1]
  fence, session, last, confirmed = tonumber(ARGV[at]), ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  inline, follow = find(ARGV[at + 4], 'i', 1, true), find(ARGV[at + 4], 'f', 1, true)
  app, location, letters, bot = ARGV[at + 5], ARGV[at + 6], ARGV[at + 7], ARGV[at + 8]
  GUILD, USER, MUTUAL, GUILDS = ARGV[at + 9], ARGV[at + 10], ARGV[at + 11], ARGV[at + 12]
  group = tonumber(match(location, '^%d+'))
  index, waiting = GUILDS .. ':' .. location, GUILDS .. ':waiting'
  poisoned, failed, failure = 0, 0, ''
  seq, results, kept = '0', {}, {}
  shared, strange = {}, {}
  return at + 13
end

local function out(kind, value, of)
  local field = seq .. kind .. (of or '')
  results[#results + 1], results[#results + 2] = field, value
  kept[#kept + 1], kept[#kept + 2] = field, value
end

-- A key of an unexpected type was written by another program: replace it, and count it.
local function call(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) == 'table' and reply.err then
    if not find(reply.err, 'WRONGTYPE', 1, true) then error(reply.err, 0) end
    poisoned = poisoned + 1
    redis.call('DEL', key)
    return redis.call(command, key, ...)
  end
  return reply
end

local function valid(value)
  if value and byte(value) ~= 123 then
    poisoned = poisoned + 1
    return nil
  end
  return value or nil
end

local function many(command, key, from, to, step)
  for at = from, to, step do call(command, key, unpack(ARGV, at, min(at + step - 1, to))) end
end

-- JSON: only the top level of an object is parsed.

local function value_end(json, at)
  local first = byte(json, at)
  if first ~= 34 and first ~= 123 and first ~= 91 then
    local _, stop = find(json, '^[^,}%s]+', at)
    return stop
  end
  local depth = 0
  while true do
    local found = find(json, '["{}%[%]]', at)
    if not found then return nil end
    local mark = byte(json, found)
    at = found + 1
    if mark == 34 then
      while true do
        local stop = find(json, '["\\]', at)
        if not stop then return nil end
        at = stop + 1
        if byte(json, stop) == 34 then break end
        at = at + 1
      end
    elseif mark == 123 or mark == 91 then
      depth = depth + 1
    else
      depth = depth - 1
    end
    if depth == 0 then return at - 1 end
  end
end

local function fields(json)
  local names, values, at = {}, {}, 2
  if find(json, '^{%s*}', 1) then return names, values end
  while true do
    local _, stop, name = find(json, '^%s*"([^"\\]*)"%s*:%s*', at)
    if not stop then return nil end
    local last_of = value_end(json, stop + 1)
    if not last_of then return nil end
    names[#names + 1], values[name] = name, sub(json, stop + 1, last_of)
    local _, comma, mark = find(json, '^%s*([,}])', last_of + 1)
    if not comma then return nil end
    if mark == '}' then return names, values end
    at = comma + 1
  end
end

-- `old` with the fields of `new` put over it; `only`: just those fields of `old` are kept.
local function merge(old, new, only)
  local old_names, old_values = fields(old)
  if not old_names then
    poisoned = poisoned + 1
    return new
  end
  local new_names, new_values = fields(new)
  if not new_names then error('not a JSON object', 0) end
  local parts = {}
  for _, name in ipairs(old_names) do
    if not only or only[name] or new_values[name] then
      parts[#parts + 1] = '"' .. name .. '":' .. (new_values[name] or old_values[name])
    end
  end
  for _, name in ipairs(new_names) do
    if not old_values[name] then parts[#parts + 1] = '"' .. name .. '":' .. new_values[name] end
  end
  return '{' .. concat(parts, ',') .. '}'
end

local function array(values)
  return '[' .. concat(values, ',') .. ']'
end

-- Whether the first of two ids was created later.
local function is_later(id, other)
  return #id > #other or (#id == #other and id > other)
end
