-- A creation per request, each with a slug of its own: the prefix is this run's, and one thread counts.
local prefix = ""
local count = 0

init = function(args)
  prefix = args[1]
  wrk.headers["content-type"] = "application/json"
end

request = function()
  count = count + 1
  local slug = string.format("%s-%010d", prefix, count)
  local body = '{"slug":"' .. slug .. '","name":"The Corner Clinic","environment":"production"}'
  return wrk.format("POST", nil, nil, body)
end
