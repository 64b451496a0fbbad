-- What is stored under the key of a conversation, whatever that is.
--
-- KEYS  conversation
-- Returns {what stands for it, its type, number of elements, the last of them}, or nil if there is nothing.
local key = KEYS[1]
local kind = redis.call('TYPE', key).ok
if kind == 'none' then return false end
local is_list = kind == 'list'
return {token_of(key), kind, is_list and redis.call('LLEN', key) or 0, is_list and redis.call('LINDEX', key, -1) or ''}
