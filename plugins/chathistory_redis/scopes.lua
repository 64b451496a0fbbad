-- The scopes of a tag.
--
-- KEYS  scopes of the tag
return redis.call('SMEMBERS', KEYS[1])
