-- Lists the scopes of a tag.
--
-- KEYS  scopes of the tag
-- Returns the scopes, or a report of damage.
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'set' and kind ~= 'none' then return {'!', 'type', kind} end
return redis.call('SMEMBERS', KEYS[1])
