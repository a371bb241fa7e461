# Build rules every folder shares: warning and hardening flags on one interface target, one static
# library a folder, one Criterion program a test file.
set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

option(MOTTE_WERROR "Treat warnings as errors" OFF)
option(MOTTE_COVERAGE "Count which branches run" OFF)
option(MOTTE_VALGRIND "Leave out the front's own filter, under which valgrind cannot run" OFF)
set(MOTTE_SANITIZE "" CACHE STRING "Value of -fsanitize= (address,undefined or thread), empty for none")

add_library(motte_flags INTERFACE)
target_include_directories(motte_flags INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_definitions(motte_flags INTERFACE _GNU_SOURCE MOTTE_VERSION="${PROJECT_VERSION}")
target_compile_definitions(motte_flags INTERFACE $<$<BOOL:${MOTTE_VALGRIND}>:MOTTE_VALGRIND>)
target_compile_options(motte_flags INTERFACE
    -Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Wvla -Wundef -Wcast-qual
    -Wwrite-strings -Wpointer-arith -Wstrict-prototypes -Wmissing-prototypes
    -Wold-style-definition -Wformat=2 -Wimplicit-fallthrough -Wswitch-enum -Wnull-dereference
    -fstack-protector-strong -fno-common -fvisibility=hidden
    $<$<C_COMPILER_ID:GNU>:-Wjump-misses-init -Wduplicated-cond -Wduplicated-branches -Wlogical-op>
    $<$<BOOL:${MOTTE_WERROR}>:-Werror>)
target_link_options(motte_flags INTERFACE -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack)
if(MOTTE_COVERAGE)
    # gcc would have execve() write the counts first: priv/child.c's comes behind a filter that stops it
    target_compile_options(motte_flags INTERFACE --coverage -fprofile-update=atomic
                           -fno-builtin-execve)
    target_link_options(motte_flags INTERFACE --coverage)
endif()
if(MOTTE_SANITIZE)
    target_compile_options(motte_flags INTERFACE -fsanitize=${MOTTE_SANITIZE}
                           -fno-sanitize-recover=all -fno-omit-frame-pointer)
    target_link_options(motte_flags INTERFACE -fsanitize=${MOTTE_SANITIZE})
else() # the sanitizers bring checks of their own
    target_compile_options(motte_flags INTERFACE
                           $<$<CONFIG:Release,RelWithDebInfo>:-D_FORTIFY_SOURCE=2>)
endif()

# motte_library(NAME SOURCES a.c b.c USES motte_base PkgConfig::NETTLE ...)
function(motte_library name)
    cmake_parse_arguments(ARG "" "" "SOURCES;USES" ${ARGN})
    add_library(${name} STATIC ${ARG_SOURCES})
    target_link_libraries(${name} PUBLIC motte_flags ${ARG_USES})
endfunction()

# motte_program(NAME SOURCES ... USES ... DESTINATION bin|libexec/motte)
function(motte_program name)
    cmake_parse_arguments(ARG "" "DESTINATION" "SOURCES;USES" ${ARGN})
    add_executable(${name} ${ARG_SOURCES})
    target_link_libraries(${name} PRIVATE motte_flags ${ARG_USES})
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
    install(TARGETS ${name} RUNTIME DESTINATION ${ARG_DESTINATION})
endfunction()

# motte_test(NAME SOURCES test_x.c USES motte_x): a Criterion program and a ctest that also fails on
# what Criterion 2.4 swallows (sanitizer reports in its child processes). JUnit goes to
# ${CMAKE_BINARY_DIR}/junit/NAME.xml. Not built under TSan: Criterion 2.4 does not start there.
function(motte_test name)
    if(MOTTE_SANITIZE STREQUAL "thread")
        return()
    endif()
    cmake_parse_arguments(ARG "" "" "SOURCES;USES" ${ARGN})
    add_executable(${name} ${ARG_SOURCES})
    target_link_libraries(${name} PRIVATE motte_flags ${ARG_USES} PkgConfig::CRITERION)
    target_compile_options(${name} PRIVATE -Wno-pedantic)
    file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/junit)
    add_test(NAME ${name} COMMAND ${name} --xml=${CMAKE_BINARY_DIR}/junit/${name}.xml)
    set_tests_properties(${name} PROPERTIES TIMEOUT 240 FAIL_REGULAR_EXPRESSION
        "(Leak|Address|Thread)Sanitizer|runtime error:")
endfunction()

# motte_thread_test(NAME SOURCES test_x_threads.c USES motte_x): a plain main() that exits non-zero
# on failure, built in every preset, so that TSan can run it.
function(motte_thread_test name)
    cmake_parse_arguments(ARG "" "" "SOURCES;USES" ${ARGN})
    add_executable(${name} ${ARG_SOURCES})
    target_link_libraries(${name} PRIVATE motte_flags ${ARG_USES} Threads::Threads)
    add_test(NAME ${name} COMMAND ${name})
    set_tests_properties(${name} PROPERTIES TIMEOUT 240 FAIL_REGULAR_EXPRESSION
        "(Leak|Address|Thread)Sanitizer|runtime error:")
endfunction()
