-- Appends records: compares the version, then writes index, records and head.
--
-- KEYS  conversation, index of its scope, scopes of its tag
-- ARGV  milliseconds to live ('' for no limit), followed by '+' and the version seen, or by '=' for a new conversation;
--       the head from the version on; the records, each with its position
-- Returns {'start stop'} if stored; otherwise the current head, nil without a conversation, or a report of damage.
local key, index, scopes = KEYS[1], KEYS[2], KEYS[3]
local lifetime, guard = string.match(ARGV[1], '^(%d*)(.*)$')
local position = string.match(string.sub(ARGV[3], -17), '(%d+)$')
local head, start, stop, version, expires = open_head(key)
if head and not start then return head end
if head and (guard ~= '+' .. version or tonumber(position) ~= tonumber(stop)) then
  if version == string.match(ARGV[2], '^[^\n]+') then
    redis.pcall('LSET', key, -1, head) -- a repeated call: write something, so that WAIT on this connection waits for it
  end
  return head
end
if not head then
  if guard ~= '=' then return false end
  start = position
  stop = position
end
-- The index first: if a later command is refused, the index has one entry too many, which readers drop. And a command
-- that needs memory first: once a script has written, Redis no longer refuses. Each append adds scope and conversation
-- to the index again, because a server that evicts may have removed only these keys.
local refused = add_to_index(index, scopes, string.match(ARGV[2], '^[^\n]+\n(%d+)'), string.sub(key, #index + 2))
if refused then return refused end
if lifetime == '' then
  if head then redis.call('PERSIST', key) end
elseif head and expires ~= string.match(ARGV[2], '^[^\n]+\n%d+\n(%d+)\n') then -- otherwise the key keeps its expiry
  redis.call('PEXPIRE', key, lifetime)
end
stop = string.format('%.0f', stop + #ARGV - 2)
local from = 3
if head then
  redis.call('LSET', key, -1, ARGV[from]) -- the first record replaces the old head; the new head goes to the end
  from = from + 1
end
ARGV[#ARGV + 1] = '1\n' .. start .. '\n' .. stop .. '\n' .. ARGV[2]
for at = from, #ARGV, 4096 do -- `unpack` takes about 8,000 at most
  local done = redis.pcall('RPUSH', key, unpack(ARGV, at, math.min(at + 4095, #ARGV)))
  if type(done) == 'table' then -- this user may not do it: then the first RPUSH already failed
    if head then redis.call('LSET', key, -1, head) end
    return done
  end
end
if not head then
  if lifetime ~= '' then redis.call('PEXPIRE', key, lifetime) end
  -- Conversations that the server has expired or evicted are still in the index. Each new conversation checks the two
  -- oldest entries, so that they do not accumulate in a scope that is never listed.
  local oldest = redis.pcall('ZRANGE', index, 0, 1)
  for _, id in ipairs(oldest.err and {} or oldest) do
    if check_exists(index, id) == 1 then redis.call('ZREM', index, id) end
  end
end
return {start .. ' ' .. stop}
