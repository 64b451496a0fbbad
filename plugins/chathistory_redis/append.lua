-- Guard, index, records and head of one append.
--
-- KEYS  conversation, index of its scope, scopes of its tag
-- ARGV  milliseconds to live, or nothing, and then '+' and the version seen, or '=' for a new conversation;
--       the head from the version on; the records, each with its position
-- Returns {'start stop'} if stored; else the present head, or nil if there is none; or what is damaged.
local key, index, scopes = KEYS[1], KEYS[2], KEYS[3]
local lifetime, guard = string.match(ARGV[1], '^(%d*)(.*)$')
local position = string.match(string.sub(ARGV[3], -17), '(%d+)$')
local head, start, stop, version, expires = opened(key)
if head and not start then return head end
if head and (guard ~= '+' .. version or tonumber(position) ~= tonumber(stop)) then
  if version == string.match(ARGV[2], '^[^\n]+') then
    redis.pcall('LSET', key, -1, head) -- a repetition: write something, so that WAIT on this connection waits for it
  end
  return head
end
if not head then
  if guard ~= '=' then return false end
  start = position
  stop = position
end
-- The index first: should a later command be refused, it has one entry too many, which readers drop. And a command
-- that needs memory first: once a script has written, Redis no longer refuses. Each append names scope and conversation
-- again, for a server that evicts may have taken these keys alone.
local refused = listed(index, scopes, string.match(ARGV[2], '^[^\n]+\n(%d+)'), string.sub(key, #index + 2))
if refused then return refused end
if lifetime == '' then
  if head then redis.call('PERSIST', key) end
elseif head and expires ~= string.match(ARGV[2], '^[^\n]+\n%d+\n(%d+)\n') then -- else its time goes on running
  redis.call('PEXPIRE', key, lifetime)
end
stop = string.format('%.0f', stop + #ARGV - 2)
local from = 3
if head then
  redis.call('LSET', key, -1, ARGV[from]) -- the first record in the place of the old head, the new head at the end
  from = from + 1
end
ARGV[#ARGV + 1] = '1\n' .. start .. '\n' .. stop .. '\n' .. ARGV[2]
for at = from, #ARGV, 4096 do -- `unpack` has room for some 8,000
  local done = redis.pcall('RPUSH', key, unpack(ARGV, at, math.min(at + 4095, #ARGV)))
  if type(done) == 'table' then -- not allowed to this user: then not even the first time
    if head then redis.call('LSET', key, -1, head) end
    return done
  end
end
if not head then
  if lifetime ~= '' then redis.call('PEXPIRE', key, lifetime) end
  -- What the server has expired or evicted is still in the index. Each new conversation sweeps two old ones, so that
  -- they do not pile up where nobody lists.
  local oldest = redis.pcall('ZRANGE', index, 0, 1)
  for _, id in ipairs(oldest.err and {} or oldest) do
    if there(index, id) == 1 then redis.call('ZREM', index, id) end
  end
end
return {start .. ' ' .. stop}
