-- Describes what is stored under the key of a conversation, of any type.
--
-- KEYS  conversation
-- Returns {token of the content, type, number of elements, the last element}, or nil if there is no such key.
local key = KEYS[1]
local kind = redis.call('TYPE', key).ok
if kind == 'none' then return false end
local is_list = kind == 'list'
return {compute_token(key), kind, is_list and redis.call('LLEN', key) or 0, is_list and redis.call('LINDEX', key, -1) or ''}
