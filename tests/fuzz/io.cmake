# SPDX-License-Identifier: Apache-2.0
wan_fuzz(safetensors wan_io)
wan_fuzz(gguf wan_io)
wan_fuzz(shards wan_weights wan_io)
wan_fuzz(codes wan_weights wan_io)
