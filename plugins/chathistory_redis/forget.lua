-- Removes the records below a position.
--
-- KEYS  conversation
-- ARGV  position
-- Returns the new head, nil without a conversation, or a report of damage.
local key = KEYS[1]
local head, start, stop = open_head(key)
if not start then return head end
local count = math.min(ARGV[1], stop) - start
if count <= 0 then return head end
local new = '1\n' .. string.format('%.0f', start + count) .. string.sub(head, #start + 3)
redis.call('LTRIM', key, count, -1) -- before the command that needs memory, so that it works when memory is full
redis.call('LSET', key, -1, new)
return new
