-- Comes before every script that opens a conversation: its head, taken apart.
--
-- Returns the head's text, start, stop, version and expires; false if there is no conversation; and what the script
-- is to return at once if start is nil: 0 for what is damaged or not a conversation, else the error of the server.
local function opened(key)
  local head = redis.pcall('LINDEX', key, -1)
  if type(head) == 'table' then
    return string.find(head.err, 'WRONGTYPE', 1, true) and 0 or head
  end
  if not head then return false end
  local start, stop, version, expires = string.match(head, '^1\n(%d+)\n(%d+)\n([^\n]+)\n%d+\n(%d*)\n')
  if not start or stop - start + 1 ~= redis.call('LLEN', key) then return 0 end
  return head, start, stop, version, expires
end
