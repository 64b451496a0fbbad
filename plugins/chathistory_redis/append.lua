-- Guard, index, records and head of one append.
--
-- KEYS  conversation, index of its scope, scopes of its tag
-- ARGV  '+' and the version seen, or '=' and the position of the first record of a new conversation;
--       the head from the version on; milliseconds to live, or ''; the bodies
-- Returns {'start stop'} if stored; else the present head, or nil if there is none.
local key, index, scopes = KEYS[1], KEYS[2], KEYS[3]
local head, start, stop, version, expires = opened(key)
if head and not start then return head end
if head and ARGV[1] ~= '+' .. version then
  if version == string.match(ARGV[2], '^[^\n]+') then
    redis.pcall('LSET', key, -1, head) -- a repetition: write something, so that WAIT on this connection waits for it
  end
  return head
end
if not head then
  if string.sub(ARGV[1], 1, 1) ~= '=' then return false end
  start = string.sub(ARGV[1], 2)
  stop = start
end
-- Each append names scope and conversation again: a server that evicts may have taken these keys alone.
redis.call('SADD', scopes, string.sub(index, #scopes + 2))
-- The index first: should a later command be refused, it has one entry too many, which readers drop. And a command
-- that needs memory first: once a script has written, Redis no longer refuses.
redis.call('ZADD', index, string.match(ARGV[2], '^[^\n]+\n(%d+)'), string.sub(key, #index + 2))
if ARGV[3] ~= '' then
  redis.call('PEXPIRE', key, ARGV[3])
elseif head and expires ~= '' then
  redis.call('PERSIST', key)
end
stop = string.format('%.0f', stop + #ARGV - 3)
local from = 4
if head then
  redis.call('LSET', key, -1, ARGV[from]) -- the first body in the place of the old head, the new head behind the last
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
  if ARGV[3] ~= '' then redis.call('PEXPIRE', key, ARGV[3]) end
  -- What the server has expired or evicted is still in the index. Each new conversation sweeps two old ones, so that
  -- they do not pile up where nobody lists.
  for _, id in ipairs(redis.call('ZRANGE', index, 0, 1)) do
    if there(index, id) == 1 then redis.call('ZREM', index, id) end
  end
end
return {start .. ' ' .. stop}
