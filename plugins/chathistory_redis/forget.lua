-- Removes the records below a position.
--
-- KEYS  conversation
-- ARGV  position
-- Returns the head after it, or nil if there is no conversation.
local key = KEYS[1]
local head, start, stop = opened(key)
if not start then return head end
local count = math.min(ARGV[1], stop) - start
if count <= 0 then return head end
local new = '1\n' .. string.format('%.0f', start + count) .. string.sub(head, #start + 3)
redis.call('LTRIM', key, count, -1) -- before what needs memory: then this is allowed also when that is full
redis.call('LSET', key, -1, new)
return new
