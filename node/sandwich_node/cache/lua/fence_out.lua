-- Raises the fence of writers' records on one slot: from then on their older owners are refused.
--
-- KEYS  records    ARGV  the fence of each
-- Returns, for each record, 1 when a writer wrote it, 0 when there was none: the server is new, or it lost its data.
-- A record that is made here has the session '-', so that a repeated call finds the same.

local RECORD_TTL_S = 604800

local written = {}
for at, record in ipairs(KEYS) do
  local text = redis.pcall('GET', record)
  if type(text) ~= 'string' then text = '' end
  local holder, of, last = string.match(text, '^(%d+) (%S+) (%d+)$')
  written[at] = of and of ~= '-' and 1 or 0
  if not holder or tonumber(holder) < tonumber(ARGV[at]) then
    local reply = redis.pcall('SET', record, ARGV[at] .. ' ' .. (of or '-') .. ' ' .. (last or '0'), 'EX', RECORD_TTL_S)
    if reply.err then return redis.error_reply((string.gsub(reply.err, '^%-', ''))) end
  end
end
return written
