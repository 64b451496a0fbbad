-- What type some keys have.
--
-- KEYS  scopes of a tag, with which they share a slot
-- ARGV  their names
local kinds = {}
for at, name in ipairs(ARGV) do kinds[at] = redis.call('TYPE', name).ok end
return kinds
