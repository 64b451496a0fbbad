-- Prepended to the scripts that repair a head: returns a token that changes with the content of a key.

local function compute_token(key)
  local kind = redis.call('TYPE', key).ok
  if kind == 'none' then return '' end
  if kind ~= 'list' then return kind .. ':' .. redis.sha1hex(redis.call('DUMP', key)) end
  return redis.call('LLEN', key) .. ':' .. redis.sha1hex(redis.call('LINDEX', key, -1))
end

