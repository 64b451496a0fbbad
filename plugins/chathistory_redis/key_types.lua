-- Returns the types of some keys.
--
-- KEYS  scopes of a tag: in the same slot as these keys
-- ARGV  the names of the keys
local kinds = {}
for at, name in ipairs(ARGV) do kinds[at] = redis.call('TYPE', name).ok end
return kinds
