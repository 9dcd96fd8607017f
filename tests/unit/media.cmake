# SPDX-License-Identifier: Apache-2.0
wan_unit_test(resize wan_io wan_base)
wan_unit_test(picture wan_media)
wan_unit_test(clip wan_media)
wan_unit_test(quality wan_media)
wan_unit_test(compare wan_media)
wan_unit_test(media_no_memory wan_media)
foreach(name malloc calloc realloc strdup strndup av_malloc av_strdup av_packet_alloc av_new_packet av_frame_alloc
        av_frame_get_buffer avcodec_alloc_context3 avformat_alloc_context avformat_new_stream
        avformat_alloc_output_context2 avio_alloc_context av_dict_set)
    target_link_options(media_no_memory_test PRIVATE -Wl,--wrap=${name})
endforeach()
