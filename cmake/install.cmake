# Installation: headers, libraries, emo.pc, the CMake package, the program.
include(CMakePackageConfigHelpers)
set(EMO_PACKAGE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/emo)

install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/emo DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
install(DIRECTORY ${PROJECT_SOURCE_DIR}/bindings/cpp/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.hpp")

set_target_properties(emo_static PROPERTIES EXPORT_NAME static)
install(TARGETS emo_static EXPORT emo-static ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT emo-static NAMESPACE emo:: DESTINATION ${EMO_PACKAGE_DIR})
if(TARGET emo)
  install(TARGETS emo EXPORT emo-shared LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(EXPORT emo-shared NAMESPACE emo:: DESTINATION ${EMO_PACKAGE_DIR})
endif()
if(TARGET emo_cli)
  set_target_properties(emo_cli PROPERTIES EXPORT_NAME cli)
  install(TARGETS emo_cli EXPORT emo-cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  install(EXPORT emo-cli NAMESPACE emo:: DESTINATION ${EMO_PACKAGE_DIR})
endif()
# Plug-ins lie beside the library; a host loads them by their absolute path.
set(EMO_PLUGIN_DIR ${CMAKE_INSTALL_LIBDIR}/emo)
if(TARGET emo_cuda)
  install(PROGRAMS ${PROJECT_BINARY_DIR}/libemo_cuda.so DESTINATION ${EMO_PLUGIN_DIR})
endif()

configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/emo-config.cmake.in ${PROJECT_BINARY_DIR}/emo-config.cmake
  INSTALL_DESTINATION ${EMO_PACKAGE_DIR} PATH_VARS EMO_PLUGIN_DIR NO_SET_AND_CHECK_MACRO)
# While the major version is 0, a minor version may break what was there before.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/emo-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/emo-config.cmake ${PROJECT_BINARY_DIR}/emo-config-version.cmake
  DESTINATION ${EMO_PACKAGE_DIR})

# emo.pc finds its prefix from its own place, so that an installed tree may be moved; absolute folders stay as given.
if(IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}")
  set(EMO_PC_PREFIX "${CMAKE_INSTALL_PREFIX}")
  set(EMO_PC_LIBDIR "${CMAKE_INSTALL_LIBDIR}")
else()
  file(RELATIVE_PATH EMO_PC_UP "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
  string(REGEX REPLACE "/$" "" EMO_PC_UP "${EMO_PC_UP}")
  set(EMO_PC_PREFIX "\${pcfiledir}/${EMO_PC_UP}")
  set(EMO_PC_LIBDIR "\${prefix}/${CMAKE_INSTALL_LIBDIR}")
endif()
if(IS_ABSOLUTE "${CMAKE_INSTALL_INCLUDEDIR}")
  set(EMO_PC_INCLUDEDIR "${CMAKE_INSTALL_INCLUDEDIR}")
else()
  set(EMO_PC_INCLUDEDIR "\${prefix}/${CMAKE_INSTALL_INCLUDEDIR}")
endif()
configure_file(${PROJECT_SOURCE_DIR}/emo.pc.in ${PROJECT_BINARY_DIR}/emo.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/emo.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE ${PROJECT_SOURCE_DIR}/README.md ${PROJECT_SOURCE_DIR}/CHANGELOG.md
  DESTINATION ${CMAKE_INSTALL_DOCDIR})
