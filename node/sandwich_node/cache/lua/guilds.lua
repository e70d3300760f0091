-- Guilds that several applications share.

local function look_who(guild)
  local apps, is_mine = call('SMEMBERS', GUILD .. guild .. '}:apps'), false
  for _, name in ipairs(apps) do is_mine = is_mine or name == app end
  shared[guild], strange[guild] = #apps > 1, #apps > 0 and not is_mine
end

local function is_shared(guild)
  if shared[guild] == nil then look_who(guild) end
  return shared[guild]
end

-- Whether only other applications are recorded in the guild: Redis lost it, and this application's GUILD_CREATE is due.
local function is_strange(guild)
  if shared[guild] == nil then look_who(guild) end
  return strange[guild]
end

-- The letters of the collections that the other applications in the guild maintain, and their bots.
local function others(guild)
  local all, bots = '', {}
  local by = call('HGETALL', GUILD .. guild .. '}:by')
  for at = 1, #by, 2 do
    local theirs, user = match(by[at + 1], '^(%l*) (%d*)')
    if by[at] ~= app and theirs then
      all = all .. theirs
      if user ~= '' then bots[#bots + 1] = user end
    end
  end
  return all, bots
end

local function may_replace(guild, letter)
  return find(letters, letter, 1, true) or not find((others(guild)), letter, 1, true)
end

local function counts(guild)
  if not is_shared(guild) then return true end
  local apps = call('SMEMBERS', GUILD .. guild .. '}:apps')
  table.sort(apps)
  return apps[1] == app
end

-- Return the value that an event replaced. If another application applied the same change first, it left the value here.
local function before(guild, slot, old, new, shown)
  shown = shown or old or ''
  if is_shared(guild) then
    local previous = GUILD .. guild .. '}:previous'
    if old == new then
      local by, value = match(call('HGET', previous, slot) or '', '^(%S+) (.*)$')
      if by and by ~= app then shown = value end
    else
      if call('HLEN', previous) >= PREVIOUS_MAX then call('DEL', previous) end
      call('HSET', previous, slot, app .. ' ' .. shown)
      call('EXPIRE', previous, PREVIOUS_TTL_S)
    end
  end
  out('b', shown ~= '' and shown or 'null')
end

-- Users and their mutual guilds.

local function user_put(user, json, guild)
  if json ~= '' then call('SET', USER .. user .. '}', json) end
  if guild then call('SADD', MUTUAL .. user .. '}', guild) end
end

local function user_drop(user, guild)
  local mutual = MUTUAL .. user .. '}'
  if call('SREM', mutual, guild) == 1 and call('EXISTS', mutual) == 0 then call('DEL', USER .. user .. '}') end
end

local function with_user(member, user, known)
  if not member then return nil, nil end
  local whole = known
  if inline then whole = valid(call('GET', USER .. user .. '}')) end
  if not whole or whole == '' then return member, nil end
  local from, to = find(member, '"user":{"id":"' .. user .. '"}', 1, true)
  if not from then return member, whole end
  return sub(member, 1, from + 6) .. whole .. sub(member, to + 1), whole
end

-- `unknown`: the user is not cached. If all members are cached, the count already excludes this user.
local function count_members(guild, change, unknown)
  local key = GUILD .. guild .. '}:guild'
  local json = call('GET', key)
  if not json then return end
  local from, to, number = find(json, '"member_count":(%d+)')
  if from and not (unknown and call('HLEN', GUILD .. guild .. '}:members') >= tonumber(number)) then
    number = format('%d', math.max(0, tonumber(number) + change))
    call('SET', key, sub(json, 1, from + 14) .. number .. sub(json, to + 1))
  end
end

-- Whether the user left recently. A late event about them must not be applied, since no later event would undo it.
local function has_left(guild, user)
  local base = GUILD .. guild .. '}:'
  return call('SISMEMBER', base .. 'gone', user) == 1 and call('HEXISTS', base .. NAMES.m, user) == 0
end

local function lose(guild, user)
  if inline then user_drop(user, guild) else out('e', guild .. ',' .. user, guild) end
end

-- Members to remove wait in `leaving`, so that a large guild does not block the server.
local function members_leave(guild)
  local members, leaving = GUILD .. guild .. '}:members', GUILD .. guild .. '}:leaving'
  if call('HLEN', members) == 0 then return end
  if call('EXISTS', leaving) == 0 then
    call('RENAME', members, leaving)
    return
  end
  for _, user in ipairs(call('HKEYS', members)) do call('HSET', leaving, user, '') end
  call('DEL', members)
end

local function drain(guild)
  local members, leaving = GUILD .. guild .. '}:members', GUILD .. guild .. '}:leaving'
  local size = call('HLEN', leaving)
  if size == 0 then return end
  if size > DRAIN_MAX then return out('d', guild, guild) end
  local gone = {guild}
  for _, user in ipairs(call('HKEYS', leaving)) do
    if call('HEXISTS', members, user) == 0 then
      if inline then user_drop(user, guild) else gone[#gone + 1] = user end
    end
  end
  if gone[2] then out('e', concat(gone, ','), guild) end
  call('UNLINK', leaving)
end

local function messages_drop(guild, channel)
  local base = GUILD .. guild .. '}:'
  if call('SREM', base .. 'talking', channel) == 1 then
    redis.call('UNLINK', base .. 'messages:' .. channel, base .. 'messages:' .. channel .. ':order')
  end
end

local function thread_drop(guild, thread)
  call('HDEL', GUILD .. guild .. '}:threads', thread)
  if is_shared(guild) then
    call('HDEL', GUILD .. guild .. '}:seen', thread)
    for _, name in ipairs(call('SMEMBERS', GUILD .. guild .. '}:apps')) do
      call('HDEL', GUILD .. guild .. '}:own', name .. ' ' .. thread)
    end
  end
  messages_drop(guild, thread)
end

-- Remove collections that no application maintains any more. The members of the other applications' bots stay.
local function let_go(guild, going, bots)
  local base = GUILD .. guild .. '}:'
  for letter in string.gmatch(going, '.') do
    if letter == 'm' then
      local stay = {}
      for _, user in ipairs(bots) do stay[user] = call('HGET', base .. NAMES.m, user) or nil end
      members_leave(guild)
      for user, member in pairs(stay) do call('HSET', base .. NAMES.m, user, member) end
      drain(guild)
    else
      call('UNLINK', base .. NAMES[letter])
    end
  end
end

local function messages_let_go(guild)
  for _, channel in ipairs(call('SMEMBERS', GUILD .. guild .. '}:talking')) do messages_drop(guild, channel) end
end

-- `some` without the letters in `others`
local function without(some, others)
  return (string.gsub(some, '.', function(letter) return find(others, letter, 1, true) and '' or letter end))
end

local sharing_begins, sharing_ends

-- The application left the guild: remove what only it maintained, or everything if it was the last one.
local function leave(guild)
  local base = GUILD .. guild .. '}:'
  local mine, holder = match(call('HGET', base .. 'by', app) or '', '^(%l*) %d* (%d+)$')
  if holder and tonumber(holder) > group then return end
  if is_shared(guild) and call('SISMEMBER', base .. 'apps', app) == 1 then sharing_ends(guild, 'ct') end
  call('SREM', base .. 'apps', app)
  call('HDEL', base .. 'by', app)
  shared[guild] = nil
  if not is_shared(guild) then redis.call('UNLINK', base .. 'seen', base .. 'own', base .. 'unseen', base .. 'voiced') end
  if call('SCARD', base .. 'apps') == 0 then
    messages_let_go(guild)
    members_leave(guild)
    for _, name in pairs(NAMES) do redis.call('UNLINK', base .. name) end
    for _, name in ipairs({'guild', 'by', 'gone', 'early', 'previous', 'talking'}) do redis.call('UNLINK', base .. name) end
    return drain(guild)
  end
  local theirs, bots = others(guild)
  let_go(guild, without(mine or '', theirs), bots)
end

-- The guild JSON with the `member_count` of an application that receives member events. Others do not see the count
-- change.
local function with_member_count(guild, json)
  if may_replace(guild, 'm') then return json end
  local count = match(call('GET', GUILD .. guild .. '}:guild') or '', '"member_count":(%d+)')
  return count and (string.gsub(json, '"member_count":%d+', '"member_count":' .. count, 1)) or json
end

local op = {}

-- guild, JSON or ''
op.guild = function(a)
  local guild, base = ARGV[a], GUILD .. ARGV[a] .. '}:'
  local holder = match(call('HGET', base .. 'by', app) or '', '(%d+)$')
  if call('SADD', base .. 'apps', app) == 1 and call('SCARD', base .. 'apps') == 2 then sharing_begins(guild) end
  if not holder or tonumber(holder) <= group then
    call('HSET', base .. 'by', app, letters .. ' ' .. bot .. ' ' .. group)
  end
  if ARGV[a + 1] ~= '' then call('SET', base .. 'guild', with_member_count(guild, ARGV[a + 1])) end
  shared[guild] = nil
  if may_replace(guild, 'm') then call('DEL', base .. 'gone') end
end

-- guild, JSON to merge
op.guild_set = function(a)
  local guild, key, new = ARGV[a], GUILD .. ARGV[a] .. '}:guild', ARGV[a + 1]
  local old = valid(call('GET', key))
  if old then new = merge(old, with_member_count(guild, new)) end
  before(guild, 'guild', old, new)
  call('SET', key, new)
end

-- guild
op.guild_down = function(a)
  local key = GUILD .. ARGV[a] .. '}:guild'
  local old = valid(call('GET', key))
  out('b', old or 'null')
  if old then call('SET', key, merge(old, '{"unavailable":true}')) end
end

-- guild: Discord reports an outage again
op.guild_stub = function(a)
  local key = GUILD .. ARGV[a] .. '}:guild'
  local old = valid(call('GET', key))
  if old then call('SET', key, merge(old, '{"unavailable":true}')) end
end

op.guild_del = function(a)
  out('b', valid(call('GET', GUILD .. ARGV[a] .. '}:guild')) or 'null')
  leave(ARGV[a])
  -- If other applications stay, this one may have stored its bot as a member after they received its departure.
  if bot ~= '' and call('HDEL', GUILD .. ARGV[a] .. '}:' .. NAMES.m, bot) == 1 then lose(ARGV[a], bot) end
end

op.leave = function(a) leave(ARGV[a]) end

-- guild, letters that the application does not keep any more; w: messages, q: the guild itself
op.forget = function(a)
  local guild, gone, base = ARGV[a], ARGV[a + 1], GUILD .. ARGV[a] .. '}:'
  local theirs, bots = others(guild)
  if call('HEXISTS', base .. 'by', app) == 1 then
    call('HSET', base .. 'by', app, letters .. ' ' .. bot .. ' ' .. group)
  end
  let_go(guild, without(gone, theirs .. 'wq'), bots)
  if is_shared(guild) then return sharing_ends(guild, gone) end
  if find(gone, 'w', 1, true) then messages_let_go(guild) end
  if find(gone, 'q', 1, true) then call('DEL', base .. 'guild') end
end
