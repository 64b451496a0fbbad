-- Comes before the scripts that repair a head: what stands for the bytes that were found.

local function token_of(key)
  local kind = redis.call('TYPE', key).ok
  if kind == 'none' then return '' end
  if kind ~= 'list' then return kind .. ':' .. redis.sha1hex(redis.call('DUMP', key)) end
  return redis.call('LLEN', key) .. ':' .. redis.sha1hex(redis.call('LINDEX', key, -1))
end

