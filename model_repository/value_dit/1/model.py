from wavserve.app.triton_entry import TritonPythonModel as TritonPythonModel
