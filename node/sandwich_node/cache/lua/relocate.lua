-- Locates guilds at shards of another group, each only while it is still located at the group that it leaves.
--
-- KEYS  1 the application's locations
-- ARGV  1 group that they leave  2 group that they go to  3 prefix of the writers' records
--       4 '1': leave out shards that have a record. They have applied their READY, and it did not list the guild
--       then guild, shard ...
-- Returns the number of guilds that moved. All keys have the slot of the locations.

local GUILDS, from, to, writer, only_unbegun = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1'
local FIRST = 5

-- A key of an unexpected type was written by another program: replace it.
local function call(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) == 'table' and reply.err then
    if not string.find(reply.err, 'WRONGTYPE', 1, true) then error(reply.err, 0) end
    redis.call('DEL', key)
    return redis.call(command, key, ...)
  end
  return reply
end

local begun, moved = {}, 0
for at = FIRST, #ARGV, 2 do
  local guild, new = ARGV[at], to .. ':' .. ARGV[at + 1]
  local old = call('HGET', GUILDS, guild)
  if old and string.match(old, '^' .. from .. ':%d+$') then
    if only_unbegun and begun[new] == nil then begun[new] = redis.call('EXISTS', writer .. new) == 1 end
    if not begun[new] then
      call('HSET', GUILDS, guild, new)
      call('SADD', GUILDS .. ':' .. new, guild)
      call('SREM', GUILDS .. ':' .. old, guild)
      if call('SREM', GUILDS .. ':' .. old .. ':chunked', guild) == 1 then
        call('SADD', GUILDS .. ':' .. new .. ':chunked', guild)
      end
      moved = moved + 1
    end
  end
end
return moved
