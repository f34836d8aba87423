-- One line that a program can read: requests, microseconds, answers of 400 and above, broken connections.
done = function(summary)
  local errors = summary.errors
  local broken = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format("bench %d %d %d %d\n", summary.requests, summary.duration, errors.status, broken))
end
