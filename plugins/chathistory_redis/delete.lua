-- Removes a conversation.
--
-- KEYS  conversation, index of its scope, scopes of its tag
-- ARGV  '+' and the version that it must have, or ''
-- Returns 1 if it is gone, the present head if that has another version, nil if there was none.
local key, index, scopes = KEYS[1], KEYS[2], KEYS[3]
local head, start, _, version = opened(key)
if head and not start then
  local broken = head == 0 and ARGV[1] == '' and redis.call('TYPE', key).ok == 'list'
  if not broken then return head end -- else whoever deletes whatever is there may
elseif head and ARGV[1] ~= '' and ARGV[1] ~= '+' .. version then
  return head
end
redis.call('ZREM', index, string.sub(key, #index + 2))
local gone = redis.call('UNLINK', key)
if redis.pcall('EXISTS', index) == 0 then redis.call('SREM', scopes, string.sub(index, #scopes + 2)) end
return gone == 1 and 1 or false
