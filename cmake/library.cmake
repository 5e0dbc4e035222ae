# The shared library libnodebits: the C interface of csrc/capi/nodebits.h and nothing else visible.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

add_library(nodebits_shared SHARED $<TARGET_OBJECTS:nodebits_capi>)
add_library(nodebits::nodebits ALIAS nodebits_shared)
target_link_libraries(nodebits_shared PRIVATE nodebits_plan)
target_include_directories(nodebits_shared INTERFACE $<BUILD_INTERFACE:${CMAKE_CURRENT_SOURCE_DIR}/csrc/capi>
                                                     $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
set_target_properties(nodebits_shared PROPERTIES OUTPUT_NAME nodebits EXPORT_NAME nodebits)
if(APPLE)
  target_link_options(nodebits_shared PRIVATE -Wl,-exported_symbol,_nb_*)
else()
  # The C++ runtime goes inside and stays there: a device needs none, and a program may have another.
  target_link_options(nodebits_shared PRIVATE -Wl,--version-script,${CMAKE_CURRENT_SOURCE_DIR}/cmake/nodebits.map)
  if(NOT NODEBITS_SANITIZE)
    target_link_options(nodebits_shared PRIVATE -static-libstdc++ -static-libgcc -Wl,--gc-sections -Wl,-z,defs)
  endif()
  set_target_properties(nodebits_shared PROPERTIES LINK_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/cmake/nodebits.map")
endif()

if(NODEBITS_LITE)
  # The wheel of nodebits-lite: files of src under another root, so that it shares none with the
  # wheel of nodebits, and the library beside those who load it. A wheel holds no links.
  install(TARGETS nodebits_shared LIBRARY DESTINATION nodebits_lite/lite)
  install(DIRECTORY packages/lite/src/ DESTINATION .)
  install(DIRECTORY src/nodebits/lite DESTINATION nodebits_lite FILES_MATCHING PATTERN "*.py")
  install(FILES src/nodebits/core/errors.py DESTINATION nodebits_lite/core)
  return()
endif()

set_target_properties(nodebits_shared PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION 1)
install(TARGETS nodebits_shared EXPORT nodebits LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES csrc/capi/nodebits.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT nodebits NAMESPACE nodebits:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/nodebits
        FILE nodebitsConfig.cmake)
write_basic_package_version_file(nodebitsConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/nodebitsConfigVersion.cmake"
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/nodebits)
configure_file(cmake/nodebits.pc.in nodebits.pc @ONLY)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/nodebits.pc" DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
