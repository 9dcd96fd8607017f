# SPDX-License-Identifier: Apache-2.0
foreach(name outfile outfolder lookup json_file safetensors gguf gguf_write shards)
    wan_unit_test(${name} wan_io)
endforeach()
