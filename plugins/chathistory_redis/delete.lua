-- Removes a conversation.
--
-- KEYS  conversation, index of its scope, scopes of its tag
-- ARGV  '+' and the version that it must have, or '' for any version
-- Returns 1 if removed, the current head if its version differs, nil without a conversation; or a report of damage.
local key, index, scopes = KEYS[1], KEYS[2], KEYS[3]
local head, start, _, version = open_head(key)
if head and not start then
  if head.err or ARGV[1] ~= '' then return head end
elseif head and ARGV[1] ~= '' and ARGV[1] ~= '+' .. version then
  return head
end
local done = redis.pcall('ZREM', index, string.sub(key, #index + 2))
if type(done) == 'table' and not string.find(done.err, 'WRONGTYPE', 1, true) then return done end
local gone = redis.call('UNLINK', key)
if redis.pcall('EXISTS', index) == 0 then redis.pcall('SREM', scopes, string.sub(index, #scopes + 2)) end
return gone == 1 and 1 or false
