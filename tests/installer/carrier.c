/* An installer of another kind, as NSIS or any other makes one: an .exe that carries a package, and
 * has Windows Installer install it without a window. Its arguments go to msiexec, in place of /i if there
 * are any; its exit status is msiexec's. PACKAGE is the package's file.
 */

#include <windows.h>
#include <stdio.h>

#define PACKAGE_RESOURCE MAKEINTRESOURCEW(1)

/* Write what the program carries to a file; whether all of it was written. */
static BOOL unpack(const WCHAR *path)
{
    HRSRC place = FindResourceW(NULL, PACKAGE_RESOURCE, (const WCHAR *)RT_RCDATA);
    DWORD size = SizeofResource(NULL, place), written = 0;
    const void *data = LockResource(LoadResource(NULL, place));
    HANDLE file = CreateFileW(path, GENERIC_WRITE, 0, NULL, CREATE_ALWAYS, 0, NULL);
    BOOL done;

    if (file == INVALID_HANDLE_VALUE)
        return FALSE;
    done = WriteFile(file, data, size, &written, NULL) && written == size;
    return CloseHandle(file) && done;
}

int wmain(int count, WCHAR **arguments)
{
    WCHAR folder[MAX_PATH + 1], path[MAX_PATH + 20], line[4 * MAX_PATH];
    STARTUPINFOW how = {.cb = sizeof how};
    PROCESS_INFORMATION program;
    DWORD status = ERROR_INSTALL_FAILURE;

    if (!GetTempPathW(MAX_PATH + 1, folder))
        return status;
    swprintf(path, sizeof path / sizeof *path, L"%lsringtun-%lu.msi", folder, GetCurrentProcessId());
    swprintf(line, sizeof line / sizeof *line, L"msiexec %ls \"%ls\" /qn",
             count > 1 ? arguments[1] : L"/i", path);
    if (unpack(path) && CreateProcessW(NULL, line, NULL, NULL, FALSE, 0, NULL, NULL, &how, &program)) {
        WaitForSingleObject(program.hProcess, INFINITE);
        GetExitCodeProcess(program.hProcess, &status);
        CloseHandle(program.hThread);
        CloseHandle(program.hProcess);
    }
    DeleteFileW(path);
    return status;
}
