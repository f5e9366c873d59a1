-- Returns 1. A replica refuses it, as it refuses every script that may write.
return 1
