-- Prepended to every script that opens a conversation: reads and parses its head.
--
-- Returns the head's text, start, stop, version and expires; false without a conversation. If start is nil, the first
-- value is the reply that the script must return at once: a report of damage {'!', kind, details}, or a server error.
local LARGEST = 9007199254740991 -- 2^53 - 1: up to here numbers are exact

local function open_head(key)
  local head = redis.pcall('LINDEX', key, -1)
  if type(head) == 'table' then
    if not string.find(head.err, 'WRONGTYPE', 1, true) then return head end
    return {'!', 'type', redis.call('TYPE', key).ok}
  end
  if not head then return false end
  local start, stop, version, expires = string.match(head, '^1\n(%d+)\n(%d+)\n([^\n]+)\n%d+\n(%d*)\n')
  if not start or #start > 16 or #stop > 16 or tonumber(start) > tonumber(stop) or tonumber(stop) > LARGEST then
    return {'!', 'head', string.sub(head, 1, 64)}
  end
  local count = redis.call('LLEN', key)
  if stop - start + 1 ~= count then
    return {'!', 'length', string.format('%.0f records instead of %.0f', count - 1, stop - start)}
  end
  return head, start, stop, version, expires
end

