# SPDX-License-Identifier: Apache-2.0
# libwan.so from the folders that make up the library, and what `cmake --install` puts where.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(folders base io tensor backend_cpu backend weights text model sample pipeline)
set(objects)
foreach(folder ${folders})
    if(NOT TARGET wan_${folder})
        message(STATUS "libwan is not built: src has no wan_${folder}")
        return()
    endif()
    list(APPEND objects $<TARGET_OBJECTS:wan_${folder}>)
endforeach()

# The static libraries of the folders are compiled as position-independent code with hidden
# visibility, so their objects serve here too.  The version script hides what the C++ library's
# templates would export.
add_library(wan_shared SHARED ${objects})
set_target_properties(wan_shared PROPERTIES
    OUTPUT_NAME wan EXPORT_NAME wan LINKER_LANGUAGE CXX
    VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}
    LINK_DEPENDS ${PROJECT_SOURCE_DIR}/cmake/libwan.map)
target_include_directories(wan_shared INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_link_options(wan_shared PRIVATE LINKER:--version-script=${PROJECT_SOURCE_DIR}/cmake/libwan.map)
if(NOT WAN_SANITIZE)
    target_link_options(wan_shared PRIVATE LINKER:--no-undefined)
endif()
target_link_libraries(wan_shared PRIVATE
    PkgConfig::JANSSON PkgConfig::SENTENCEPIECE PkgConfig::UTF8PROC Threads::Threads m)

install(TARGETS wan_shared EXPORT wan
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} NAMELINK_COMPONENT development)
install(FILES include/wan.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

# Both find their way from where they lie, so that an installed tree can be moved.
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/wan)
install(EXPORT wan FILE wanConfig.cmake NAMESPACE wan:: DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/wanConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/wanConfigVersion.cmake DESTINATION ${package_dir})
file(RELATIVE_PATH WAN_PC_TO_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(cmake/wan.pc.in wan.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/wan.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

if(TARGET wan) # writes its own manual page (src/cli)
    install(TARGETS wan RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
    install(FILES ${PROJECT_BINARY_DIR}/wan.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
endif()
install(FILES LICENSE THIRD_PARTY.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
# `wan` looks for the demo model in ../share/wan/models/demo.
install(DIRECTORY models/demo DESTINATION ${CMAKE_INSTALL_DATADIR}/wan/models)
