op.members_begin = function(a)
  if may_replace(ARGV[a], 'm') then members_leave(ARGV[a]) end
end

-- guild, then user id, member, user or '' ...
op.members = function(a, z)
  local guild, base = ARGV[a], GUILD .. ARGV[a] .. '}:'
  -- An application that receives member events is authoritative for members and their count. It may not have received
  -- these members yet, for example a bot that was just added.
  local receives_members = may_replace(guild, 'm')
  local are_gone = receives_members and call('EXISTS', base .. 'gone') == 1
  for at = a + 1, z, 3 do
    local id = ARGV[at]
    if are_gone then call('SREM', base .. 'gone', id) end
    local is_new = call(receives_members and 'HSET' or 'HSETNX', base .. NAMES.m, id, ARGV[at + 1]) == 1
    if is_new and not receives_members and is_shared(guild) then
      call('SADD', base .. 'early', id)
      call('EXPIRE', base .. 'early', GONE_TTL_S)
    end
    if inline then
      user_put(id, (is_new or receives_members) and ARGV[at + 2] or '', guild)
    elseif (is_new or receives_members) and not find(letters, 'm', 1, true) then
      out('p', id, id)
    end
  end
end

op.members_end = function(a) drain(ARGV[a]) end

-- guild, users that the client has removed
op.drain = function(a, z)
  local guild, base = ARGV[a], GUILD .. ARGV[a] .. '}:'
  many('HDEL', base .. 'leaving', a + 1, z, CHUNK)
  local cursor, found, gone, ids = '0', {}, {guild}, {guild}
  repeat
    local page = call('HSCAN', base .. 'leaving', cursor, 'COUNT', DRAIN_MAX)
    cursor, found = page[1], page[2]
  until cursor == '0' or found[1]
  for at = 1, #found, 2 do
    local user = found[at]
    ids[#ids + 1] = user
    if call('HEXISTS', base .. 'members', user) == 0 then
      if inline then user_drop(user, guild) else gone[#gone + 1] = user end
    end
    if inline then call('HDEL', base .. 'leaving', user) end
  end
  if inline then
    if call('EXISTS', base .. 'leaving') == 1 then out('d', guild, guild) end
  elseif ids[2] then
    if gone[2] then out('e', concat(gone, ','), guild) end
    out('k', concat(ids, ','), guild)
  end
end

-- guild, role, cursor: remove a deleted role from the members. Large guilds are scanned in steps, so that they do not
-- block the server.
op.role_strip = function(a)
  local guild, role, key = ARGV[a], ARGV[a + 1], GUILD .. ARGV[a] .. '}:' .. NAMES.m
  local named = '"' .. role .. '"'
  local page = call('HSCAN', key, ARGV[a + 2], 'COUNT', DRAIN_MAX)
  for at = 1, #page[2], 2 do
    local json = page[2][at + 1]
    local _, values = fields(find(json, named, 1, true) and json or '')
    local roles = values and values.roles
    if roles and find(roles, named, 1, true) then
      local left = {}
      for other in string.gmatch(roles, '"%d+"') do
        if other ~= named then left[#left + 1] = other end
      end
      call('HSET', key, page[2][at], merge(json, '{"roles":' .. array(left) .. '}'))
    end
  end
  if page[1] ~= '0' then out('s', guild .. ',' .. role .. ',' .. page[1], role) end
end

-- guild, user id, member or '', user or ''
op.join = function(a)
  local guild, id = ARGV[a], ARGV[a + 1]
  local base = GUILD .. guild .. '}:'
  local is_new = ARGV[a + 2] == '' and counts(guild)
  if ARGV[a + 2] ~= '' then
    is_new = call('HSET', base .. NAMES.m, id, ARGV[a + 2]) == 1
    if inline then user_put(id, ARGV[a + 3], guild) end
  end
  call('SREM', base .. 'gone', id)
  if is_shared(guild) then
    is_new = call('SREM', base .. 'early', id) == 1 or is_new
  end
  if is_new then count_members(guild, 1) end
end

-- guild, user id, member to merge, user or '', the cached user if it is on another server. A member who left is not
-- stored again: only GUILD_MEMBER_ADD, GUILD_CREATE or the answer to a request adds a member.
op.member_set = function(a)
  local guild, id, new, user = ARGV[a], ARGV[a + 1], ARGV[a + 2], ARGV[a + 3]
  local key = GUILD .. guild .. '}:' .. NAMES.m
  local old = valid(call('HGET', key, id))
  if not old and has_left(guild, id) then return before(guild, 'm' .. id, nil, nil) end
  local shown, whole = with_user(old, id, ARGV[a + 4])
  if old then new = merge(old, new) end
  before(guild, 'm' .. id, (old or '') .. (user ~= '' and whole or ''), new .. (whole and user or ''), shown)
  call('HSET', key, id, new)
  if inline then user_put(id, user, guild) else out('p', id, id) end
end

-- guild, user id, member to merge, user or '': a member learned by an application without member events
op.learn = function(a)
  local guild, id, new = ARGV[a], ARGV[a + 1], ARGV[a + 2]
  if not may_replace(guild, 'm') then return end
  local key = GUILD .. guild .. '}:' .. NAMES.m
  local old = valid(call('HGET', key, id))
  call('HSET', key, id, old and merge(old, new) or new)
  if inline then user_put(id, ARGV[a + 3], guild) else out('p', id) end
end

-- guild, user id, the cached user if it is on another server, '1' when members are kept
op.member_del = function(a)
  local guild, id, base = ARGV[a], ARGV[a + 1], GUILD .. ARGV[a] .. '}:'
  local was_known = false
  if ARGV[a + 3] == '1' then
    local old = valid(call('HGET', base .. NAMES.m, id))
    was_known = old ~= nil
    before(guild, 'm' .. id, old, nil, (with_user(old, id, ARGV[a + 2])))
    call('HDEL', base .. NAMES.m, id)
  end
  call('HDEL', base .. NAMES.p, id)
  call('HDEL', base .. NAMES.v, id)
  lose(guild, id)
  if call('SCARD', base .. 'gone') >= GONE_MAX then call('DEL', base .. 'gone') end
  local is_first = call('SADD', base .. 'gone', id) == 1 or not is_shared(guild)
  call('EXPIRE', base .. 'gone', GONE_TTL_S)
  if was_known then count_members(guild, -1) elseif is_first then count_members(guild, -1, true) end
end
