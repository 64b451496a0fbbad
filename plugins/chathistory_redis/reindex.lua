-- Adds conversations that a scan of all keys has found to their indexes, or corrects their times there.
--
-- Failures are ignored: an index key with a wrong type stays, and a user without the right to write can still scan.
--
-- KEYS  scopes of a tag
-- ARGV  index and id of each conversation
local scopes = KEYS[1]
for at = 1, #ARGV, 2 do
  local index, id = ARGV[at], ARGV[at + 1]
  local head, start = open_head(index .. ':' .. id)
  if start or (head and not head.err) then -- it exists, readable or not
    local score = redis.pcall('ZSCORE', index, id)
    local updated = start and string.match(head, '^1\n%d+\n%d+\n[^\n]+\n(%d+)') or '0'
    if not score or (start and type(score) == 'string' and tonumber(score) ~= tonumber(updated)) then
      redis.pcall('ZADD', index, updated, id)
    end
    redis.pcall('PERSIST', index)
    redis.pcall('SADD', scopes, string.sub(index, #scopes + 2))
  end
end
redis.pcall('PERSIST', scopes)
return 0
