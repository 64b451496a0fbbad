-- Removes a key that belongs to no readable conversation, and its entry in the index.
--
-- KEYS  the key, its index, the scopes of its tag
-- ARGV  'conversation' if the key may be one: it then stays if it can be read; otherwise 'other' or 'index';
--       optionally a head that is known to be unreadable
-- Returns 1 if the key was removed, 0 if it did not exist, or the head of a conversation that stays.
local key, index, scopes = KEYS[1], KEYS[2], KEYS[3]
if ARGV[1] == 'conversation' then
  local head, start = open_head(key)
  if head and head ~= ARGV[2] and (start or head.err) then return head end
end
local gone = 0
if ARGV[1] ~= 'index' or redis.call('TYPE', key).ok ~= 'zset' then gone = redis.call('UNLINK', key) end
redis.pcall('ZREM', index, string.sub(key, #index + 2))
if redis.pcall('EXISTS', index) == 0 then redis.pcall('SREM', scopes, string.sub(index, #scopes + 2)) end
return gone
