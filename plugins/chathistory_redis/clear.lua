-- Removes a key that belongs to no conversation that can be read, and its entry in the index.
--
-- KEYS  the key, the index beside it, the scopes beside that
-- ARGV  'conversation' if it may be one, which stays if it can be read, or else 'other', or 'index';
--       a head that cannot be read, if any
-- Returns 1 if it is gone, 0 if there was nothing, the head of a conversation that stays.
local key, index, scopes = KEYS[1], KEYS[2], KEYS[3]
if ARGV[1] == 'conversation' then
  local head, start = opened(key)
  if head and head ~= ARGV[2] and (start or head.err) then return head end
end
local gone = 0
if ARGV[1] ~= 'index' or redis.call('TYPE', key).ok ~= 'zset' then gone = redis.call('UNLINK', key) end
redis.pcall('ZREM', index, string.sub(key, #index + 2))
if redis.pcall('EXISTS', index) == 0 then redis.pcall('SREM', scopes, string.sub(index, #scopes + 2)) end
return gone
